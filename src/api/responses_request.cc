#include "api/responses_request.h"

#include <algorithm>

#include "api/responses_items.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;
using Choice = Conversation::ToolChoice;

bool has_tool(const ordered_json& tools, const std::string& name) {
  return std::any_of(tools.begin(), tools.end(),
                     [&](const ordered_json& tool) { return tool["function"]["name"] == name; });
}

// {"type": "function", "name"}: one of `tools`.
bool read_tool_name(const ordered_json& object, const std::string& path, const ordered_json& tools,
                    Fields& fields, std::string* name) {
  if (!object.is_object()) {
    fields.fail_type(path, "an object", object);
    return false;
  }
  Fields inner(object, path + ".", path);
  std::string type;
  inner.string("type", 64, &type);
  if (type != "function") inner.fail("type", "expected function");
  inner.string("name", kMaxIdBytes, name);
  if (!inner.failed() && !has_tool(tools, *name))
    inner.fail("name", fmt::format("there is no tool '{}'", *name));
  Refusal refusal = inner.finish();
  if (refusal) fields.fail(*refusal);
  return !refusal;
}

// {"type": "allowed_tools", "mode", "tools"}: the model sees these alone.
void read_allowed_tools(const ordered_json& choice, Fields& fields, ordered_json* tools, Choice* out) {
  Fields inner(choice, "tool_choice.", "tool_choice");
  inner.accept({"type"});
  std::string mode;
  inner.string("mode", 64, &mode);
  if (mode != "auto" && mode != "required") inner.fail("mode", "expected auto or required");
  *out = mode == "required" ? Choice::kRequired : Choice::kAuto;
  ordered_json allowed = ordered_json::array();
  const ordered_json* list = inner.list("tools");
  for (size_t i = 0; list != nullptr && i < list->size(); ++i) {
    std::string name;
    if (!read_tool_name((*list)[i], fmt::format("tool_choice.tools[{}]", i), *tools, fields, &name)) return;
    for (const ordered_json& tool : *tools) {
      if (tool["function"]["name"] == name) allowed.push_back(tool);
    }
  }
  if (allowed.empty()) inner.fail("tools", "expected at least one of the tools");
  if (Refusal refusal = inner.finish()) return fields.fail(*refusal);
  *tools = std::move(allowed);
}

void read_tools(const ServiceContext& context, Fields& fields, ResponsesRequest* out) {
  Conversation& conversation = out->chat.conversation;
  ordered_json echo = ordered_json::array();
  ordered_json tools = ordered_json::array();
  if (const ordered_json* given = fields.list("tools")) {
    if (Refusal refusal = read_response_tools(context.options.limits, *given, &echo, &tools))
      return fields.fail(*refusal);
  }
  const ordered_json* choice = fields.any("tool_choice");
  conversation.tool_choice = tools.empty() ? Choice::kNone : Choice::kAuto;
  if (choice != nullptr && choice->is_object()) {
    const auto type = choice->find("type");
    if (type != choice->end() && *type == "allowed_tools") {
      read_allowed_tools(*choice, fields, &tools, &conversation.tool_choice);
    } else {
      conversation.tool_choice = Choice::kNamed;
      read_tool_name(*choice, "tool_choice", tools, fields, &conversation.named_tool);
    }
  } else if (choice != nullptr && *choice == "required") {
    conversation.tool_choice = Choice::kRequired;
  } else if (choice != nullptr && *choice == "none") {
    conversation.tool_choice = Choice::kNone;
  } else if (choice != nullptr && *choice != "auto") {
    fields.fail_type("tool_choice", "\"auto\", \"none\", \"required\" or an object that names functions",
                     *choice);
  }
  fields.boolean("parallel_tool_calls", &out->chat.answer.parallel_calls);
  out->echo["tools"] = std::move(echo);
  out->echo["tool_choice"] = choice == nullptr ? ordered_json("auto") : *choice;
  out->echo["parallel_tool_calls"] = out->chat.answer.parallel_calls;
  conversation.refuses_calls = choice != nullptr && *choice == "none";
  if (conversation.tool_choice == Choice::kNone || fields.failed()) return;
  if (tools.empty()) return fields.fail("tool_choice", "asks for a call, but there are no tools");
  conversation.tools = std::move(tools);
}

void read_reasoning(Fields& fields, ResponsesRequest* out) {
  ordered_json& echo = out->echo["reasoning"] = {{"effort", nullptr}, {"summary", nullptr}};
  const ordered_json* reasoning = fields.object("reasoning");
  if (reasoning == nullptr) return;
  Fields inner(fields, *reasoning, "reasoning");
  if (const ordered_json* effort = inner.any("effort")) {
    read_effort("effort", *effort, inner, &out->chat.conversation.template_kwargs);
    echo["effort"] = *effort;
  }
  for (const char* name : {"summary", "generate_summary"}) {
    const ordered_json* summary = inner.any(name);
    // "auto" leaves it to the server: the whole text is there, so no summary is written.
    if (summary != nullptr && *summary != "auto") {
      inner.fail(unsupported(fmt::format("reasoning.{}", name),
                             "the reasoning itself is in the answer; only \"auto\" is available"));
    }
  }
  if (Refusal refusal = inner.finish()) fields.fail(*refusal);
}

void read_text(Fields& fields, ResponsesRequest* out) {
  ordered_json& echo = out->echo["text"] = {{"format", {{"type", "text"}}}};
  const ordered_json* text = fields.object("text");
  if (text == nullptr) return;
  Fields inner(fields, *text, "text");
  read_flat_format(inner, "format", "text.format", false, &out->chat.sampling.form);
  if (const ordered_json* format = inner.any("format")) echo["format"] = *format;
  inner.accept({"verbosity"});
  if (Refusal refusal = inner.finish()) fields.fail(*refusal);
}

void read_include(Fields& fields, ResponsesRequest* out) {
  const ordered_json* include = fields.list("include");
  for (size_t i = 0; include != nullptr && i < include->size(); ++i) {
    const ordered_json& what = (*include)[i];
    if (what == "message.output_text.logprobs") {
      out->chat.logprobs = true;
    } else if (what == "reasoning.encrypted_content") {
      out->encrypted_reasoning = true;
    } else {
      fields.fail(unsupported(
          fmt::format("include[{}]", i),
          fmt::format("got {}, expected message.output_text.logprobs or reasoning.encrypted_content",
                      describe(what))));
    }
  }
  int32_t& top = out->chat.top_logprobs;
  fields.int32("top_logprobs", 0, kMaxTopLogprobs, &top);
  if (top > 0) out->chat.logprobs = true;
  out->echo["top_logprobs"] = top;
}

void read_generation(const ServiceContext& context, Fields& fields, ResponsesRequest* out) {
  ChatRequest& chat = out->chat;
  int32_t limit = 0;
  ordered_json& echo = out->echo["max_output_tokens"];
  if (fields.int32("max_output_tokens", 1, INT32_MAX, &limit)) {
    chat.sampling.max_new_tokens = limit;
    echo = limit;
  }
  start_sampling(context, &chat.sampling);
  read_distribution(fields, &chat.sampling.params);
  complete_stop_tokens(context, &chat.sampling.params);
  out->echo["temperature"] = chat.sampling.params.temperature;
  out->echo["top_p"] = chat.sampling.params.top_p;
  fields.boolean("stream", &chat.stream.stream);
  if (const ordered_json* options = fields.object("stream_options")) {
    Fields inner(fields, *options, "stream_options");
    inner.refuse({"include_obfuscation"}, "is not available");
    if (Refusal refusal = inner.finish()) fields.fail(*refusal);
  }
}

// What needs a memory between requests, or the hosted service.
void read_stateful_fields(Fields& fields, ResponsesRequest* out) {
  static constexpr std::string_view kStateless = "nothing is stored; send the earlier items in input";
  fields.refuse({"previous_response_id", "conversation"}, kStateless);
  fields.refuse({"store", "background"}, "nothing is stored: only false is available");
  fields.refuse(
      {"background_options", "prompt", "context_management", "moderation", "access_programs", "image"},
      "is not available");
  if (const ordered_json* truncation = fields.any("truncation"); truncation && *truncation != "disabled") {
    fields.fail(unsupported("truncation", "only \"disabled\" is available"));
  }
  // A bound on the hosted service's own tools, of which there are none; labels and hints.
  fields.accept({"max_tool_calls", "service_tier", "safety_identifier", "prompt_cache_key",
                 "prompt_cache_options", "prompt_cache_retention"});
  const ordered_json* metadata = fields.object("metadata");
  out->echo["metadata"] = metadata == nullptr ? ordered_json::object() : *metadata;
  const ordered_json* user = fields.any("user");
  if (user != nullptr) out->echo["user"] = *user;
}

}  // namespace

Refusal read_responses_request(const ServiceContext& context, const ordered_json& body,
                               ResponsesRequest* out) {
  ChatRequest& chat = out->chat;
  Fields fields(body, "", "request", context.field_log);
  fields.string("model", 4096, &chat.model);
  if (!fields.failed()) {
    if (Refusal refusal = check_model(context, chat.model)) return refusal;
  }
  std::string instructions;
  if (fields.string("instructions", SIZE_MAX, &instructions)) out->echo["instructions"] = instructions;
  const ordered_json* input = fields.any("input");
  if (input == nullptr) {
    fields.fail("input", "is missing, expected a string or a list of items");
  } else if (Refusal refusal = read_response_input(context.options.limits, instructions, *input,
                                                   &chat.conversation.messages)) {
    fields.fail(*refusal);
  } else if (chat.conversation.messages.empty()) {
    fields.fail("input", "has nothing that the model could read");
  }
  chat.conversation.template_kwargs = default_kwargs(context, chat.model);
  read_tools(context, fields, out);
  read_reasoning(fields, out);
  read_text(fields, out);
  read_include(fields, out);
  read_generation(context, fields, out);
  read_stateful_fields(fields, out);
  if (!fields.failed()) set_answer_options(context, fields, &chat);
  chat.options.rid = "resp_" + random_id();
  return fields.finish();
}

}  // namespace fathom::api

#include "api/anthropic_request.h"

#include "api/anthropic_conversation.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;
using Choice = Conversation::ToolChoice;

// {"type": "auto" | "any" | "tool" | "none", "name", "disable_parallel_tool_use"}
void read_tool_choice(Fields& fields, const ordered_json& tools, ChatRequest* out) {
  Conversation& conversation = out->conversation;
  conversation.tool_choice = tools.empty() ? Choice::kNone : Choice::kAuto;
  const ordered_json* choice = fields.object("tool_choice");
  if (choice != nullptr) {
    Fields inner(fields, *choice, "tool_choice");
    std::string type;
    bool one_call = false;
    inner.string("type", 64, &type);
    const bool named = inner.string("name", kMaxIdBytes, &conversation.named_tool);
    if (inner.boolean("disable_parallel_tool_use", &one_call)) out->answer.parallel_calls = !one_call;
    if (type == "any") {
      conversation.tool_choice = Choice::kRequired;
    } else if (type == "tool") {
      conversation.tool_choice = Choice::kNamed;
      bool found = false;
      for (const ordered_json& tool : tools)
        found = found || tool["function"]["name"] == conversation.named_tool;
      if (!found) inner.fail("name", fmt::format("there is no tool '{}'", conversation.named_tool));
    } else if (type == "none") {
      conversation.tool_choice = Choice::kNone;
      conversation.refuses_calls = true;
    } else if (type != "auto") {
      inner.fail("type", "expected auto, any, tool or none");
    }
    if (named && type != "tool") inner.fail("name", "is only allowed with the type tool");
    if (Refusal refusal = inner.finish()) fields.fail(*refusal);
  }
  if (conversation.tool_choice == Choice::kNone) return;
  if (tools.empty()) return fields.fail("tool_choice", "asks for a call, but there are no tools");
  conversation.tools = tools;
}

void read_thinking(Fields& fields, MessagesRequest* out) {
  const ordered_json* thinking = fields.object("thinking");
  if (thinking == nullptr) return;
  Fields inner(fields, *thinking, "thinking");
  std::string type;
  std::string display = "summarized";
  inner.string("type", 64, &type);
  if (type == "enabled" || type == "adaptive") {
    set_thinking(true, &out->chat.conversation.template_kwargs);
    inner.string("display", 64, &display);
    if (display != "summarized" && display != "omitted")
      inner.fail("display", "expected summarized or omitted");
    out->omit_thinking = display == "omitted";
  } else if (type == "disabled") {
    set_thinking(false, &out->chat.conversation.template_kwargs);
  } else {
    inner.fail("type", "expected enabled, adaptive or disabled");
  }
  int32_t budget = 0;
  if (inner.int32("budget_tokens", 0, INT32_MAX, &budget)) {
    out->chat.sampling.rules.thinking_budget = budget;
  }
  if (Refusal refusal = inner.finish()) fields.fail(*refusal);
}

// {"effort", "format": {"type": "json_schema", "schema"}}; the format alone is also called output_format.
void read_output_config(Fields& fields, ChatRequest* out) {
  const ordered_json* config = fields.object("output_config");
  if (config != nullptr) {
    Fields inner(fields, *config, "output_config");
    std::string effort;
    if (inner.string("effort", 64, &effort)) {
      const bool known =
          effort == "low" || effort == "medium" || effort == "high" || effort == "xhigh" || effort == "max";
      if (!known) inner.fail("effort", "expected low, medium, high, xhigh or max");
      out->conversation.template_kwargs["reasoning_effort"] = effort;
    }
    read_flat_format(inner, "format", "output_config.format", true, &out->sampling.form);
    if (Refusal refusal = inner.finish()) fields.fail(*refusal);
  }
  read_flat_format(fields, "output_format", "output_format", true, &out->sampling.form);
}

void read_generation(const ServiceContext& context, Fields& fields, ChatRequest* out) {
  int32_t limit = 0;
  if (fields.int32("max_tokens", 0, INT32_MAX, &limit)) {
    out->soft_limit = limit;
  } else {
    fields.fail("max_tokens", "is missing, expected the largest number of tokens to write");
  }
  read_distribution(fields, &out->sampling.params);
  const Limits& limits = context.options.limits;
  read_stops("stop_sequences", limits, fields, &out->sampling);
  fields.boolean("stream", &out->stream.stream);
  if (const ordered_json* metadata = fields.object("metadata")) {
    Fields inner(fields, *metadata, "metadata");
    inner.accept({"user_id"});
    if (Refusal refusal = inner.finish()) fields.fail(*refusal);
  }
  complete_stop_tokens(context, &out->sampling.params);
}

// What the hosted service has and this server does not, and what changes nothing here.
void read_hosted_extras(Fields& fields) {
  fields.refuse({"container"}, "code execution is not available");
  fields.refuse({"mcp_servers"}, "the server reads nothing from the network");
  fields.refuse({"context_management"}, "is not available; send the messages that the model is to see");
  fields.refuse({"diagnostics"}, "is not available");
  if (const ordered_json* speed = fields.any("speed")) {
    if (*speed != "standard") fields.fail(unsupported("speed", "only \"standard\" is available"));
  }
  // The prefix cache needs no marks.
  fields.accept({"cache_control", "service_tier", "inference_geo", "user_profile_id", "workspace_id"});
}

}  // namespace

Refusal read_messages_request(const ServiceContext& context, const ordered_json& body, bool counting,
                              MessagesRequest* out) {
  ChatRequest& chat = out->chat;
  Fields fields(body, "", "request", context.field_log);
  fields.string("model", 4096, &chat.model);
  if (!fields.failed()) {
    if (Refusal refusal = check_model(context, chat.model)) return refusal;
  }
  const ordered_json* system = fields.any("system");
  const ordered_json* messages = fields.list("messages");
  if (messages != nullptr) {
    Refusal refusal = read_anthropic_messages(context.options.limits, system, *messages, &chat.conversation);
    if (refusal) fields.fail(*refusal);
  } else if (!fields.failed()) {
    fields.fail("messages", "is missing, expected a list of messages");
  }
  ordered_json tools = ordered_json::array();
  if (const ordered_json* given = fields.list("tools")) {
    if (Refusal refusal = read_anthropic_tools(context.options.limits, *given, &tools)) fields.fail(*refusal);
  }
  chat.conversation.template_kwargs = default_kwargs(context, chat.model);
  start_sampling(context, &chat.sampling);
  if (!fields.failed()) read_tool_choice(fields, tools, &chat);
  read_thinking(fields, out);
  read_output_config(fields, &chat);
  if (!counting) read_generation(context, fields, &chat);
  if (!fields.failed()) set_answer_options(context, fields, &chat);
  chat.options.rid = "msg_" + random_id();
  read_hosted_extras(fields);
  return fields.finish();
}

}  // namespace fathom::api

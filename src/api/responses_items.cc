#include "api/responses_items.h"

#include <algorithm>
#include <utility>

#include "api/chat_messages.h"
#include "api/conversation_turns.h"
#include "api/fields.h"
#include "api/sampling_fields.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

ApiError wrong(const std::string& param, std::string_view message) {
  return {400, fmt::format("{}: {}", param, message), param, {}};
}

std::string type_of(const ordered_json& object) {
  const auto type = object.find("type");
  return type != object.end() && type->is_string() ? type->get<std::string>() : "";
}

// Appends the text of one part of a content or output list.
Refusal read_part(const ordered_json& part, const std::string& path, std::string* out) {
  if (!part.is_object()) {
    return wrong(path, fmt::format("got {}, expected a content part, {{\"type\": ...}}", describe(part)));
  }
  const std::string type = type_of(part);
  const bool text =
      type == "input_text" || type == "output_text" || type == "text" || type == "reasoning_text";
  if (!text && type != "refusal") {
    return unsupported(path + ".type",
                       type.starts_with("input_")
                           ? fmt::format("'{}' is not available: the model reads text only", type)
                           : fmt::format("got '{}', expected input_text or output_text", type));
  }
  Fields fields(part, path + ".", "content part");
  fields.accept({"type", "logprobs", "parsed"});  // `parsed...` is what OpenAI's client adds to what it got
  if (const ordered_json* annotations = fields.list("annotations"); annotations && !annotations->empty()) {
    fields.fail(unsupported(path + ".annotations", "are not available"));
  }
  const char* name = text ? "text" : "refusal";
  std::string value;
  if (!fields.string(name, SIZE_MAX, &value) && !fields.failed())
    fields.fail(name, "is missing, expected a string");
  *out += value;
  return fields.finish();
}

// A string, or parts: an assistant's are joined as they are, others' by line breaks.
Refusal read_content(const ordered_json& content, const std::string& path, std::string_view separator,
                     std::string* out) {
  if (content.is_string()) {
    *out = content.get<std::string>();
    return std::nullopt;
  }
  if (!content.is_array()) {
    return wrong(path, fmt::format("got {}, expected a string or a list of parts", describe(content)));
  }
  for (size_t i = 0; i < content.size(); ++i) {
    if (i > 0) *out += separator;
    if (Refusal refusal = read_part(content[i], fmt::format("{}[{}]", path, i), out)) return refusal;
  }
  return std::nullopt;
}

Refusal read_message(const ordered_json& item, const std::string& path, ConversationTurns* turns) {
  Fields fields(item, path + ".", "message");
  fields.accept({"type", "id", "status", "phase"});
  std::string role;
  fields.string("role", 64, &role);
  const ordered_json* content = fields.any("content");
  const bool assistant = role == "assistant";
  if (!assistant && role != "user" && role != "system" && role != "developer" && !fields.failed()) {
    fields.fail("role", "expected user, assistant, system or developer");
  }
  std::string text;
  if (content == nullptr) {
    fields.fail("content", "is missing, expected a string or a list of parts");
  } else if (Refusal refusal = read_content(*content, path + ".content", assistant ? "" : "\n", &text)) {
    fields.fail(*refusal);
  }
  if (Refusal refusal = fields.finish()) return refusal;
  if (assistant) {
    turns->next_assistant();
    turns->assistant_text(text);
  } else if (role == "user") {
    turns->user(std::move(text));
  } else {
    turns->system(std::move(text));
  }
  return std::nullopt;
}

Refusal read_call(const ordered_json& item, const std::string& path, ConversationTurns* turns) {
  Fields fields(item, path + ".", "function_call");
  fields.accept({"type", "id", "status", "caller", "parsed_arguments"});
  fields.refuse({"namespace", "async"}, "is not available");
  std::string id;
  std::string name;
  std::string arguments;
  if (!fields.string("call_id", kMaxIdBytes, &id) && !fields.failed()) fields.fail("call_id", "is missing");
  if (!fields.string("name", kMaxIdBytes, &name) && !fields.failed()) fields.fail("name", "is missing");
  if (!fields.string("arguments", SIZE_MAX, &arguments) && !fields.failed()) {
    fields.fail("arguments", "is missing, expected a string of JSON");
  }
  if (Refusal refusal = fields.finish()) return refusal;
  turns->continue_assistant();
  turns->assistant_call(id, name, std::move(arguments));
  return std::nullopt;
}

Refusal read_output(const ordered_json& item, const std::string& path, ConversationTurns* turns) {
  Fields fields(item, path + ".", "function_call_output");
  fields.accept({"type", "id", "status", "caller", "name"});
  fields.refuse({"namespace"}, "is not available");
  std::string id;
  std::string text;
  if (!fields.string("call_id", kMaxIdBytes, &id) && !fields.failed()) fields.fail("call_id", "is missing");
  if (const ordered_json* output = fields.any("output")) {
    if (Refusal refusal = read_content(*output, path + ".output", "\n", &text)) fields.fail(*refusal);
  } else {
    fields.fail("output", "is missing, expected a string or a list of parts");
  }
  if (Refusal refusal = fields.finish()) return refusal;
  turns->tool_output(std::move(id), std::move(text));
  return std::nullopt;
}

// The thoughts of an earlier answer. A summary is for people, and not read.
Refusal read_reasoning(const ordered_json& item, const std::string& path, ConversationTurns* turns) {
  Fields fields(item, path + ".", "reasoning");
  fields.accept({"type", "id", "status", "summary"});
  std::string text;
  std::string sealed;
  const ordered_json* content = fields.list("content");
  if (content != nullptr) {
    if (Refusal refusal = read_content(*content, path + ".content", "", &text)) fields.fail(*refusal);
  }
  if (fields.string("encrypted_content", SIZE_MAX, &sealed) && text.empty()) {
    if (!sealed.starts_with(kPlainReasoning)) {
      return unsupported(path + ".encrypted_content", "only the service that wrote it can read it");
    }
    text = sealed.substr(kPlainReasoning.size());
  }
  if (Refusal refusal = fields.finish()) return refusal;
  if (text.empty()) return std::nullopt;
  turns->next_assistant();
  turns->assistant_thinking(text);
  return std::nullopt;
}

Refusal read_item(const ordered_json& item, const std::string& path, ConversationTurns* turns) {
  if (!item.is_object()) return wrong(path, fmt::format("got {}, expected an item", describe(item)));
  const std::string type = type_of(item);
  if (type == "message" || (type.empty() && item.contains("role"))) return read_message(item, path, turns);
  if (type == "function_call") return read_call(item, path, turns);
  if (type == "function_call_output") return read_output(item, path, turns);
  if (type == "reasoning") return read_reasoning(item, path, turns);
  if (type == "item_reference") return unsupported(path + ".type", "nothing is stored; send the item itself");
  return unsupported(
      path + ".type",
      fmt::format("got '{}', expected message, function_call, function_call_output or reasoning", type));
}

Refusal read_tool(const ordered_json& tool, const std::string& path, ordered_json* echo, ordered_json* chat) {
  if (!tool.is_object()) return wrong(path, fmt::format("got {}, expected an object", describe(tool)));
  const std::string type = type_of(tool);
  if (type != "function") {
    return unsupported(path + ".type", fmt::format("'{}' is not available; only function tools are", type));
  }
  Fields fields(tool, path + ".", "tool");
  fields.accept({"type"});
  std::string name;
  std::string description;
  bool strict = false;
  ordered_json function = ordered_json::object();
  if (!fields.string("name", kMaxIdBytes, &name) || name.empty()) fields.fail("name", "expected a name");
  function["name"] = name;
  if (fields.string("description", SIZE_MAX, &description)) function["description"] = description;
  const ordered_json* parameters = fields.object("parameters");
  if (parameters != nullptr) function["parameters"] = *parameters;
  if (fields.boolean("strict", &strict)) function["strict"] = strict;
  if (const ordered_json* callers = fields.list("allowed_callers")) {
    const bool direct =
        std::all_of(callers->begin(), callers->end(), [](const auto& one) { return one == "direct"; });
    if (!direct) fields.fail(unsupported(path + ".allowed_callers", "only [\"direct\"] is available"));
  }
  fields.refuse({"defer_loading", "async", "output_schema"}, "is not available");
  *echo = {{"type", "function"},
           {"name", name},
           {"description", function.value("description", ordered_json())},
           {"parameters", function.value("parameters", ordered_json())},
           {"strict", function.value("strict", ordered_json())}};
  *chat = {{"type", "function"}, {"function", std::move(function)}};
  return fields.finish();
}

}  // namespace

Refusal read_response_input(const Limits& limits, const std::string& instructions, const ordered_json& input,
                            ordered_json* messages) {
  ConversationTurns turns;
  if (!instructions.empty()) turns.system(instructions);
  if (input.is_string()) {
    turns.user(input.get<std::string>());
  } else if (!input.is_array() || input.empty() || input.size() > limits.messages) {
    return wrong("input", fmt::format("got {}, expected a string or a list of 1 to {} items", describe(input),
                                      limits.messages));
  } else {
    for (size_t i = 0; i < input.size(); ++i) {
      if (Refusal refusal = read_item(input[i], fmt::format("input[{}]", i), &turns)) return refusal;
    }
  }
  *messages = turns.take();
  return std::nullopt;
}

Refusal read_response_tools(const Limits& limits, const ordered_json& tools, ordered_json* echo,
                            ordered_json* chat) {
  if (tools.size() > limits.tools) {
    return wrong("tools", fmt::format("got a list of {}, expected at most {}", tools.size(), limits.tools));
  }
  for (size_t i = 0; i < tools.size(); ++i) {
    Refusal refusal =
        read_tool(tools[i], fmt::format("tools[{}]", i), &echo->emplace_back(), &chat->emplace_back());
    if (refusal) return refusal;
  }
  return std::nullopt;
}

}  // namespace fathom::api

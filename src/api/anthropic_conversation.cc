#include "api/anthropic_conversation.h"

#include <algorithm>
#include <utility>

#include "api/chat_messages.h"
#include "api/conversation_turns.h"
#include "api/fields.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

ApiError wrong(const std::string& param, std::string_view message) {
  return {400, fmt::format("{}: {}", param, message), param, {}};
}

Refusal read_text_block(const ordered_json& block, const std::string& path, std::string* out) {
  Fields fields(block, path + ".", "text block");
  fields.accept({"type", "cache_control"});
  fields.refuse({"citations"}, "are not available");
  if (!fields.string("text", SIZE_MAX, out) && !fields.failed()) {
    fields.fail("text", "is missing, expected a string");
  }
  return fields.finish();
}

Refusal block_type(const ordered_json& block, const std::string& path, std::string* type) {
  if (!block.is_object()) {
    return wrong(path, fmt::format("got {}, expected a content block, {{\"type\": ...}}", describe(block)));
  }
  const auto found = block.find("type");
  if (found == block.end() || !found->is_string()) {
    return wrong(path + ".type", "expected a string, e.g. \"text\"");
  }
  *type = found->get<std::string>();
  return std::nullopt;
}

ApiError unknown_block(const std::string& path, const std::string& type, std::string_view expected) {
  if (type == "image" || type == "document") {
    return unsupported(path + ".type", fmt::format("'{}' is not available: the model reads text only", type));
  }
  if (type == "redacted_thinking") {
    return unsupported(path + ".type", "only the service that wrote a redacted_thinking block can read it");
  }
  return unsupported(path + ".type", fmt::format("got '{}', expected {}", type, expected));
}

// A string, or text blocks; each block's text goes to `take`.
template <class Take>
Refusal read_texts(const ordered_json& content, const std::string& path, Take take) {
  if (content.is_string()) {
    take(content.get_ref<const std::string&>());
    return std::nullopt;
  }
  if (!content.is_array()) {
    return wrong(path, fmt::format("got {}, expected a string or a list of text blocks", describe(content)));
  }
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string place = fmt::format("{}[{}]", path, i);
    std::string type;
    std::string text;
    if (Refusal refusal = block_type(content[i], place, &type)) return refusal;
    if (type != "text") return unknown_block(place, type, "text");
    if (Refusal refusal = read_text_block(content[i], place, &text)) return refusal;
    take(text);
  }
  return std::nullopt;
}

Refusal read_joined(const ordered_json& content, const std::string& path, std::string* out) {
  bool first = true;
  return read_texts(content, path, [&](const std::string& text) {
    if (!std::exchange(first, false)) *out += '\n';
    *out += text;
  });
}

Refusal read_tool_result(const ordered_json& block, const std::string& path, ConversationTurns* turns) {
  Fields fields(block, path + ".", "tool_result block");
  fields.accept({"type", "cache_control", "toolset_name"});
  std::string id;
  std::string output;
  bool is_error = false;
  if (!fields.string("tool_use_id", kMaxIdBytes, &id) && !fields.failed()) {
    fields.fail("tool_use_id", "is missing, expected the id of a tool_use block");
  }
  fields.boolean("is_error", &is_error);
  if (const ordered_json* content = fields.any("content")) {
    if (Refusal refusal = read_joined(*content, path + ".content", &output)) fields.fail(*refusal);
  }
  if (Refusal refusal = fields.finish()) return refusal;
  // Templates have no place for the flag, so the model reads it.
  if (is_error && !output.starts_with("Error")) output.insert(0, output.empty() ? "Error" : "Error: ");
  turns->tool_output(std::move(id), std::move(output));
  return std::nullopt;
}

Refusal read_user_block(const ordered_json& block, const std::string& path, ConversationTurns* turns) {
  std::string type;
  if (Refusal refusal = block_type(block, path, &type)) return refusal;
  if (type == "tool_result") return read_tool_result(block, path, turns);
  if (type != "text") return unknown_block(path, type, "text or tool_result");
  std::string text;
  if (Refusal refusal = read_text_block(block, path, &text)) return refusal;
  turns->continue_user(text);
  return std::nullopt;
}

// The arguments' text: what the model itself wrote where it was no JSON.
std::string arguments_of(const ordered_json& input) {
  const auto raw = input.find(kInvalidJson);
  if (input.size() == 1 && raw != input.end() && raw->is_string()) return raw->get<std::string>();
  return spaced_json(input);
}

Refusal read_assistant_block(const ordered_json& block, const std::string& path, ConversationTurns* turns) {
  std::string type;
  std::string text;
  if (Refusal refusal = block_type(block, path, &type)) return refusal;
  if (type == "text") {
    if (Refusal refusal = read_text_block(block, path, &text)) return refusal;
    turns->assistant_text(text);
    return std::nullopt;
  }
  Fields fields(block, path + ".", type + " block");
  fields.accept({"type", "cache_control"});
  if (type == "thinking") {
    fields.accept({"signature"});
    if (!fields.string("thinking", SIZE_MAX, &text) && !fields.failed()) {
      fields.fail("thinking", "is missing, expected a string");
    }
    turns->assistant_thinking(text);
    return fields.finish();
  }
  if (type != "tool_use") return unknown_block(path, type, "text, thinking or tool_use");
  fields.accept({"caller", "toolset_name"});
  std::string id;
  std::string name;
  if (!fields.string("id", kMaxIdBytes, &id) && !fields.failed()) fields.fail("id", "is missing");
  if (!fields.string("name", kMaxIdBytes, &name) && !fields.failed()) fields.fail("name", "is missing");
  const ordered_json* input = fields.object("input");
  if (input == nullptr && !fields.failed()) fields.fail("input", "is missing, expected an object");
  if (Refusal refusal = fields.finish()) return refusal;
  turns->assistant_call(id, name, arguments_of(*input));
  return std::nullopt;
}

Refusal read_message(const ordered_json& message, const std::string& path, ConversationTurns* turns) {
  if (!message.is_object()) {
    return wrong(path, fmt::format("got {}, expected an object with role and content", describe(message)));
  }
  Fields fields(message, path + ".", "message");
  std::string role;
  fields.string("role", 64, &role);
  const ordered_json* content = fields.any("content");
  const std::string place = path + ".content";
  if (role != "user" && role != "assistant" && role != "system" && !fields.failed()) {
    fields.fail("role", "expected user, assistant or system");
  }
  if (content == nullptr) fields.fail("content", "is missing, expected a string or a list of content blocks");
  if (Refusal refusal = fields.finish()) return refusal;

  if (role == "system") {
    std::string text;
    if (Refusal refusal = read_joined(*content, place, &text)) return refusal;
    turns->system(std::move(text));
    return std::nullopt;
  }
  const bool assistant = role == "assistant";
  if (assistant) turns->continue_assistant();
  if (content->is_string()) {
    const auto& text = content->get_ref<const std::string&>();
    assistant ? turns->assistant_text(text) : turns->continue_user(text);
    return std::nullopt;
  }
  if (!content->is_array() || (content->empty() && !assistant)) {
    return wrong(place,
                 fmt::format("got {}, expected a string or at least one content block", describe(*content)));
  }
  for (size_t i = 0; i < content->size(); ++i) {
    const std::string block_path = fmt::format("{}[{}]", place, i);
    Refusal refusal = assistant ? read_assistant_block((*content)[i], block_path, turns)
                                : read_user_block((*content)[i], block_path, turns);
    if (refusal) return refusal;
  }
  return std::nullopt;
}

// A last message of the assistant's is the beginning of the answer.
Refusal take_prefill(const std::string& path, Conversation* out) {
  ordered_json& last = out->messages.back();
  if (last["role"] != "assistant") return std::nullopt;
  if (last.contains("tool_calls")) return wrong(path, "its tool_use blocks have no tool_result after them");
  out->continues = true;
  out->continued_content = last["content"].get<std::string>();
  out->continued_reasoning = last.value("reasoning_content", "");
  out->messages.erase(out->messages.size() - 1);
  if (out->messages.empty()) return wrong("messages", "expected a message before the assistant's last one");
  return std::nullopt;
}

Refusal read_tool(const ordered_json& tool, const std::string& path, ordered_json* out) {
  if (!tool.is_object()) return wrong(path, fmt::format("got {}, expected an object", describe(tool)));
  Fields fields(tool, path + ".", "tool");
  std::string type = "custom";
  fields.string("type", kMaxIdBytes, &type);
  if (type != "custom" && !fields.failed()) {
    return unsupported(
        path + ".type",
        fmt::format("'{}' runs on the hosted service; only tools of your own are available", type));
  }
  ordered_json function = ordered_json::object();
  std::string name;
  std::string description;
  bool strict = false;
  if (!fields.string("name", kMaxIdBytes, &name) || name.empty()) fields.fail("name", "expected a name");
  function["name"] = name;
  if (fields.string("description", SIZE_MAX, &description)) function["description"] = description;
  const ordered_json* schema = fields.object("input_schema");
  if (schema == nullptr) {
    fields.fail("input_schema", "is missing, expected a JSON schema, which is an object");
  } else {
    function["parameters"] = *schema;
  }
  if (fields.boolean("strict", &strict)) function["strict"] = strict;
  if (const ordered_json* callers = fields.list("allowed_callers")) {
    const bool direct =
        std::all_of(callers->begin(), callers->end(), [](const auto& one) { return one == "direct"; });
    if (!direct) fields.fail(unsupported(path + ".allowed_callers", "only [\"direct\"] is available"));
  }
  fields.refuse({"defer_loading"}, "is not available; every tool is in the prompt");
  fields.refuse({"input_examples"}, "are not available; put them in the description");
  fields.accept({"cache_control", "eager_input_streaming"});  // arguments always come as they are written
  *out = {{"type", "function"}, {"function", std::move(function)}};
  return fields.finish();
}

void append_spaced(const ordered_json& value, std::string* out) {
  if (!value.is_structured()) {
    *out += dump(value);
    return;
  }
  const bool object = value.is_object();
  *out += object ? '{' : '[';
  bool first = true;
  for (const auto& [key, item] : value.items()) {
    if (!std::exchange(first, false)) *out += ", ";
    if (object) *out += dump(ordered_json(key)) + ": ";
    append_spaced(item, out);
  }
  *out += object ? '}' : ']';
}

}  // namespace

std::string spaced_json(const ordered_json& value) {
  std::string text;
  append_spaced(value, &text);  // parse_json_object has bounded the depth
  return text;
}

Refusal read_anthropic_messages(const Limits& limits, const ordered_json* system,
                                const ordered_json& messages, Conversation* out) {
  if (messages.empty() || messages.size() > limits.messages) {
    return wrong("messages",
                 fmt::format("got a list of {}, expected 1 to {}", messages.size(), limits.messages));
  }
  ConversationTurns turns;
  if (system != nullptr) {
    std::string text;
    if (Refusal refusal = read_joined(*system, "system", &text)) return refusal;
    if (!text.empty()) turns.system(std::move(text));
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    if (Refusal refusal = read_message(messages[i], fmt::format("messages[{}]", i), &turns)) return refusal;
  }
  out->messages = turns.take();
  return take_prefill(fmt::format("messages[{}]", messages.size() - 1), out);
}

Refusal read_anthropic_tools(const Limits& limits, const ordered_json& tools, ordered_json* out) {
  if (tools.size() > limits.tools) {
    return wrong("tools", fmt::format("got a list of {}, expected at most {}", tools.size(), limits.tools));
  }
  *out = ordered_json::array();
  for (size_t i = 0; i < tools.size(); ++i) {
    if (Refusal refusal = read_tool(tools[i], fmt::format("tools[{}]", i), &out->emplace_back()))
      return refusal;
  }
  return std::nullopt;
}

}  // namespace fathom::api

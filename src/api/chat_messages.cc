#include "api/chat_messages.h"

#include <algorithm>
#include <string>

#include "api/fields.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

ApiError wrong(const std::string& param, std::string_view message) {
  return {400, fmt::format("{}: {}", param, message), param, {}};
}

ApiError wrong_type(const std::string& param, std::string_view expected, const ordered_json& got) {
  return wrong(param, fmt::format("got {}, expected {}", describe(got), expected));
}

// The value of `key`, or null when it is absent or null.
const ordered_json* get(const ordered_json& object, std::string_view key) {
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

using Encoding = std::optional<text::PromptEncoding>;

Refusal read_role(const ordered_json& message, const std::string& path, Encoding encoding,
                  std::string* role) {
  const ordered_json* value = get(message, "role");
  static constexpr std::string_view kExpected = "one of system, developer, user, assistant, tool, function";
  if (value == nullptr) return wrong(path + "role", fmt::format("is missing, expected {}", kExpected));
  if (!value->is_string()) return wrong_type(path + "role", kExpected, *value);
  *role = lower(value->get<std::string>());
  if (*role == "developer" && !encoding) *role = "system";
  if (*role == "function") *role = "tool";
  for (std::string_view known : {"system", "developer", "user", "assistant", "tool"}) {
    if (*role == known) return std::nullopt;
  }
  if (*role == "latest_reminder" && encoding && *encoding != text::PromptEncoding::kV32) return std::nullopt;
  return wrong_type(path + "role", kExpected, *value);
}

// Joins the parts of a content list. Thinking parts of an assistant go to `reasoning`.
Refusal join_parts(const ordered_json& parts, const std::string& path, bool assistant, std::string* content,
                   std::string* reasoning) {
  bool first = true;
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string part_path = fmt::format("{}content[{}]", path, i);
    if (!parts[i].is_object()) return wrong_type(part_path, "a content part, {\"type\": ...}", parts[i]);
    const ordered_json* type = get(parts[i], "type");
    if (type == nullptr || !type->is_string()) {
      return wrong(part_path + ".type", "expected a string, e.g. \"text\"");
    }
    const auto& kind = type->get_ref<const std::string&>();
    const bool thinking = assistant && (kind == "thinking" || kind == "reasoning");
    if (kind != "text" && !thinking && !(assistant && kind == "refusal")) {
      static constexpr std::string_view kMedia[] = {"image_url", "image",       "video_url",
                                                    "audio_url", "input_audio", "file"};
      const bool media = std::find(std::begin(kMedia), std::end(kMedia), kind) != std::end(kMedia);
      return unsupported(part_path + ".type",
                         media ? fmt::format("'{}' is not available: the model reads text only", kind)
                               : fmt::format("got {}, expected \"text\"", describe(*type)));
    }
    const ordered_json* text = get(parts[i], kind);
    if (text == nullptr && thinking) text = get(parts[i], "text");
    if (text == nullptr || !text->is_string()) return wrong(part_path + "." + kind, "expected a string");
    if (thinking) {
      *reasoning += text->get_ref<const std::string&>();
      continue;
    }
    if (!first) *content += ' ';  // as the reference system joins them
    *content += text->get_ref<const std::string&>();
    first = false;
  }
  return std::nullopt;
}

Refusal check_tool_calls(const ordered_json& calls, const std::string& path) {
  if (!calls.is_array()) return wrong_type(path, "a list of tool calls", calls);
  for (size_t i = 0; i < calls.size(); ++i) {
    const std::string call_path = fmt::format("{}[{}]", path, i);
    const ordered_json* function = calls[i].is_object() ? get(calls[i], "function") : nullptr;
    if (function == nullptr || !function->is_object()) {
      return wrong(call_path, "expected {\"type\": \"function\", \"function\": {\"name\", \"arguments\"}}");
    }
    const ordered_json* name = get(*function, "name");
    if (name == nullptr || !name->is_string())
      return wrong(call_path + ".function.name", "expected a string");
    const ordered_json* arguments = get(*function, "arguments");
    if (arguments == nullptr || !(arguments->is_string() || arguments->is_object())) {
      return wrong(call_path + ".function.arguments", "expected a string of JSON");
    }
  }
  return std::nullopt;
}

// What DeepSeek's encodings take from messages besides OpenAI's fields.
Refusal check_encoded_fields(const Limits& limits, const ordered_json& message, const std::string& role,
                             const std::string& path) {
  const bool instructs = role == "system" || role == "developer";
  const ordered_json* tools = instructs ? get(message, "tools") : nullptr;
  if (tools != nullptr && !tools->is_array()) return wrong_type(path + "tools", "a list of tools", *tools);
  if (tools != nullptr) {
    if (Refusal refusal = check_tools(limits, *tools, path + "tools")) return refusal;
  }
  const ordered_json* format = instructs ? get(message, "response_format") : nullptr;
  if (format != nullptr && !format->is_object()) {
    return wrong_type(path + "response_format", "a JSON schema, which is an object", *format);
  }
  const ordered_json* task = get(message, "task");
  if (task != nullptr && !task->is_string()) return wrong_type(path + "task", "a string", *task);
  return std::nullopt;
}

Refusal normalize_message(const Limits& limits, const ordered_json& message, const std::string& path,
                          Encoding encoding, ordered_json* out) {
  std::string role;
  if (Refusal refusal = read_role(message, path, encoding, &role)) return refusal;
  if (encoding) {
    if (Refusal refusal = check_encoded_fields(limits, message, role, path)) return refusal;
  }
  const bool assistant = role == "assistant";
  if (get(message, "function_call") != nullptr) {
    return unsupported(path + "function_call", "is not available; use tool_calls");
  }
  if (get(message, "audio") != nullptr) {
    return unsupported(path + "audio", "is not available: the model reads text only");
  }

  std::string content;
  std::string reasoning;
  const ordered_json* given = get(message, "content");
  const ordered_json* calls = get(message, "tool_calls");
  if (given == nullptr) {
    if (!assistant || (calls == nullptr && get(message, "reasoning_content") == nullptr &&
                       get(message, "refusal") == nullptr)) {
      return wrong(path + "content", "is missing, expected a string or a list of text parts");
    }
  } else if (given->is_string()) {
    content = given->get<std::string>();
  } else if (given->is_array()) {
    if (Refusal refusal = join_parts(*given, path, assistant, &content, &reasoning)) return refusal;
  } else {
    return wrong_type(path + "content", "a string or a list of text parts", *given);
  }
  if (calls != nullptr) {
    if (!assistant) return wrong(path + "tool_calls", "only assistant messages have tool calls");
    if (Refusal refusal = check_tool_calls(*calls, path + "tool_calls")) return refusal;
  }
  for (const char* name : {"reasoning_content", "reasoning"}) {
    const ordered_json* text = get(message, name);
    if (text == nullptr) continue;
    if (!text->is_string()) return wrong_type(path + name, "a string", *text);
    if (reasoning.empty()) reasoning = text->get<std::string>();
  }

  *out = ordered_json::object();
  (*out)["role"] = std::move(role);
  // An assistant that only called tools has null content, which templates test for.
  (*out)["content"] =
      given == nullptr && calls != nullptr ? ordered_json() : ordered_json(std::move(content));
  if (assistant && !reasoning.empty()) (*out)["reasoning_content"] = std::move(reasoning);
  auto& entries = out->get_ref<ordered_json::object_t&>();
  for (const auto& [key, value] : message.items()) {
    const bool done = key == "role" || key == "content" || key == "reasoning_content" || key == "reasoning" ||
                      key == "prefix";
    if (!done && !value.is_null()) entries.emplace_back(key, value);
  }
  return std::nullopt;
}

}  // namespace

Refusal normalize_messages(const Limits& limits, const ordered_json& messages,
                           std::optional<text::PromptEncoding> encoding, ordered_json* out) {
  if (messages.empty()) return wrong("messages", "the list is empty, expected at least one message");
  if (messages.size() > limits.messages) {
    return wrong("messages",
                 fmt::format("got a list of {}, expected at most {}", messages.size(), limits.messages));
  }
  *out = ordered_json::array();
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string path = fmt::format("messages[{}]", i);
    if (!messages[i].is_object()) return wrong_type(path, "an object with role and content", messages[i]);
    ordered_json& message = out->emplace_back();
    if (Refusal refusal = normalize_message(limits, messages[i], path + ".", encoding, &message))
      return refusal;
  }
  return std::nullopt;
}

Refusal check_tools(const Limits& limits, const ordered_json& tools, const std::string& field) {
  if (tools.size() > limits.tools) {
    return wrong(field, fmt::format("got a list of {}, expected at most {}", tools.size(), limits.tools));
  }
  for (size_t i = 0; i < tools.size(); ++i) {
    const std::string path = fmt::format("{}[{}]", field, i);
    if (!tools[i].is_object()) return wrong_type(path, "an object", tools[i]);
    const ordered_json* type = get(tools[i], "type");
    if (type == nullptr || *type != "function") {
      return wrong(path + ".type", "expected \"function\", the only kind of tool");
    }
    const ordered_json* function = get(tools[i], "function");
    if (function == nullptr || !function->is_object()) return wrong(path + ".function", "expected an object");
    const ordered_json* name = get(*function, "name");
    if (name == nullptr || !name->is_string() || name->get_ref<const std::string&>().empty()) {
      return wrong(path + ".function.name", "expected a name");
    }
    const ordered_json* description = get(*function, "description");
    if (description != nullptr && !description->is_string()) {
      return wrong_type(path + ".function.description", "a string", *description);
    }
    const ordered_json* parameters = get(*function, "parameters");
    if (parameters != nullptr && !parameters->is_object()) {
      return wrong_type(path + ".function.parameters", "a JSON schema, which is an object", *parameters);
    }
    const ordered_json* strict = get(*function, "strict");
    if (strict != nullptr && !strict->is_boolean()) {
      return wrong_type(path + ".function.strict", "true or false", *strict);
    }
  }
  return std::nullopt;
}

}  // namespace fathom::api

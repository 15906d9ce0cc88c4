// Conversation -> template -> token ids.
#include <algorithm>
#include <charconv>
#include <span>

#include "api/chat_request.h"
#include "api/prompts.h"
#include "api/special_tokens.h"
#include "text/template/chat_template.h"
#include "text/tokenizer/tokenizer.h"
#include "text/tokenizer/utf8.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

// The same value with special tokens made text in every string and key.
ordered_json guard_value(const SpecialTokenGuard& guard, const ordered_json& value) {
  if (value.is_string()) return guard.mark(value.get_ref<const std::string&>());
  if (!value.is_structured()) return value;
  ordered_json guarded = value.is_object() ? ordered_json::object() : ordered_json::array();
  for (const auto& [key, inner] : value.items()) {
    if (value.is_object()) {
      guarded.get_ref<ordered_json::object_t&>().emplace_back(guard.mark(key), guard_value(guard, inner));
    } else {
      guarded.push_back(guard_value(guard, inner));
    }
  }
  return guarded;
}

// The UTF-16 unit that an escape at `pos` of JSON stands for ("\u003c"), or -1.
int32_t escaped_unit(std::string_view json, size_t pos) {
  if (pos + 6 > json.size() || json[pos] != '\\' || json[pos + 1] != 'u') return -1;
  int32_t unit = -1;
  const char* digits = json.data() + pos + 2;
  return std::from_chars(digits, digits + 4, unit, 16).ptr == digits + 4 ? unit : -1;
}

// The same JSON with every character as itself that may be: '<' for "\u003c", '/' for "\/".
std::string without_escapes(std::string_view json) {
  std::string out;
  for (size_t pos = 0; pos < json.size();) {
    if (json[pos] != '\\' || pos + 1 == json.size()) {
      out += json[pos++];
      continue;
    }
    int32_t code = json[pos + 1] == '/' ? '/' : escaped_unit(json, pos);
    size_t length = escaped_unit(json, pos) < 0 ? 2 : 6;
    const int32_t low = escaped_unit(json, pos + length);
    if (code >= 0xD800 && code < 0xDC00 && low >= 0xDC00 && low < 0xE000) {
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
      length = 12;
    }
    const bool half = code >= 0xD800 && code < 0xE000;
    if (code < 0x20 || code == '"' || code == '\\' || half) {
      out += json.substr(pos, length);
    } else {
      text::append_utf8(static_cast<char32_t>(code), &out);
    }
    pos += length;
  }
  return out;
}

// Arguments are JSON in a string, whose escapes hide special tokens from guard_value, and encodings write the
// values without them.
void guard_arguments(const SpecialTokenGuard& guard, ordered_json* calls) {
  for (ordered_json& call : *calls) {
    ordered_json& arguments = call["function"]["arguments"];
    if (!arguments.is_string()) continue;
    const std::string plain = without_escapes(arguments.get_ref<const std::string&>());
    std::string guarded = guard.mark(plain);
    if (guarded != plain) arguments = std::move(guarded);
  }
}

// What clients write, in which special tokens are only text. What the assistant thought and said is the
// model's: its markers are tokens again when it comes back.
ordered_json guard_messages(const SpecialTokenGuard& guard, const ordered_json& messages) {
  ordered_json guarded = guard_value(guard, messages);
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i]["role"] != "assistant") continue;
    if (messages[i].contains("tool_calls")) guard_arguments(guard, &guarded[i]["tool_calls"]);
    for (const char* name : {"content", "reasoning_content"}) {
      if (messages[i].contains(name)) guarded[i][name] = messages[i][name];
    }
  }
  return guarded;
}

// Of the strings and keys in `value`.
size_t text_bytes(const ordered_json& value) {
  if (value.is_string()) return value.get_ref<const std::string&>().size();
  size_t bytes = 0;
  if (value.is_structured()) {
    for (const auto& [key, inner] : value.items())
      bytes += (value.is_object() ? key.size() : 0) + text_bytes(inner);
  }
  return bytes;
}

// What comes to stand in the prompt; of an assistant's words templates leave out the thinking.
size_t prompt_bytes(const Conversation& conversation) {
  size_t bytes = text_bytes(conversation.tools) + text_bytes(conversation.template_kwargs) +
                 text_bytes(conversation.response_format);
  for (const ordered_json& message : conversation.messages) {
    for (const auto& [key, value] : message.items()) {
      const bool assistants =
          message["role"] == "assistant" && (key == "content" || key == "reasoning_content");
      if (!assistants) bytes += text_bytes(value);
    }
  }
  return bytes;
}

// Where the answer goes on: after the thinking, which a template's generation prompt may have opened.
Refusal continue_prompt(const Conversation& conversation, std::string* prompt) {
  if (!conversation.continued_reasoning.empty()) {
    const size_t end = prompt->find_last_not_of('\n');
    const bool thinking = end != std::string::npos && prompt->substr(0, end + 1).ends_with("<think>");
    if (!thinking) {
      return ApiError{400,
                      "messages: the message to continue has reasoning_content, but thinking is off "
                      "(chat_template_kwargs.thinking)",
                      "messages",
                      {}};
    }
    *prompt += conversation.continued_reasoning;
    if (!conversation.continued_content.empty()) *prompt += "</think>";
  }
  *prompt += conversation.continued_content;
  return std::nullopt;
}

}  // namespace

Refusal make_chat_prompt(const ServiceContext& context, const Conversation& conversation,
                         const std::string& cache_namespace, ChatPrompt* out) {
  if (context.tokenizer == nullptr) {
    return ApiError{400, "messages: this server runs without a tokenizer; send input_ids", "messages", {}};
  }
  if (context.chat_template == nullptr) {
    return ApiError{
        400,
        "messages: the model has no chat template; use /v1/completions or input_ids, or start the "
        "server with --chat-template",
        "messages",
        {}};
  }
  if (Refusal refusal = check_text_length(context, prompt_bytes(conversation))) return refusal;
  const bool split = conversation.split_special_tokens.value_or(context.options.split_special_tokens);
  const auto guarded = [&](const ordered_json& value) {
    return split ? guard_value(*context.guard, value) : value;
  };
  ordered_json variables = guarded(conversation.template_kwargs);
  variables["messages"] =
      split ? guard_messages(*context.guard, conversation.messages) : conversation.messages;
  variables["tools"] = guarded(conversation.tools);
  if (!conversation.response_format.is_null()) {
    variables["response_format"] = guarded(conversation.response_format);
  }
  variables["add_generation_prompt"] = true;
  variables["bos_token"] = context.tokenizer->bos_token();
  variables["eos_token"] = context.tokenizer->eos_token();
  Result<std::string> prompt = context.chat_template->render(variables);
  if (!prompt.ok()) {
    ApiError error = to_api_error(prompt.error(), "messages");
    error.message = "The chat template refused the messages: " + error.message;
    return error;
  }
  if (conversation.continues) {
    if (Refusal refusal = continue_prompt(conversation, &prompt.value())) return refusal;
  }
  if (Refusal refusal = check_text_length(context, prompt->size())) return refusal;
  TurnMemory::Begin known = context.turns->recall(context.caller->scope + cache_namespace, *prompt);
  const std::vector<int32_t> rest = context.guard->encode(std::string_view(*prompt).substr(known.bytes));
  out->ids = std::move(known.ids);
  out->ids.insert(out->ids.end(), rest.begin(), rest.end());
  out->text = context.guard->unmark(*prompt);
  out->marked = std::make_shared<const std::string>(std::move(*prompt));
  return std::nullopt;
}

text::ReasoningStart chat_answer_start(const ServiceContext& context, const ChatRequest& request,
                                       const ChatPrompt& prompt) {
  const text::ReasoningStyle style = context.options.parsers.reasoning;
  if (!prompt.text.empty()) {
    return text::reasoning_start(style, prompt.text, request.conversation.continues);
  }
  if (context.tokenizer == nullptr) return text::ReasoningStart::kContent;
  // Given as ids: the generation prompt is a few tokens.
  constexpr size_t kEnd = 16;
  const std::span<const int32_t> ids(prompt.ids);
  const std::string end = context.tokenizer->decode(ids.last(std::min(kEnd, ids.size())), false);
  return text::reasoning_start(style, end, false);
}

}  // namespace fathom::api

// Conversation -> template -> token ids.
#include <algorithm>
#include <span>

#include "api/chat_request.h"
#include "api/prompts.h"
#include "api/special_tokens.h"
#include "text/template/chat_template.h"
#include "text/tokenizer/tokenizer.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

// The users' and tools' words, in which special tokens are only text. The assistant's and the system's come
// from the model and the operator.
ordered_json guard_messages(const ServiceContext& context, const ordered_json& messages) {
  ordered_json guarded = messages;
  for (ordered_json& message : guarded) {
    const ordered_json& role = message["role"];
    if (role != "user" && role != "tool" && role != "latest_reminder") continue;
    ordered_json& content = message["content"];
    if (content.is_string()) content = context.guard->mark(content.get_ref<const std::string&>());
  }
  return guarded;
}

// What surely comes to stand in the prompt; of an assistant's words templates leave out the thinking.
size_t content_bytes(const ordered_json& messages) {
  size_t bytes = 0;
  for (const ordered_json& message : messages) {
    const ordered_json& content = message["content"];
    if (message["role"] != "assistant" && content.is_string())
      bytes += content.get_ref<const std::string&>().size();
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
  if (Refusal refusal = check_text_length(context, content_bytes(conversation.messages))) return refusal;
  ordered_json variables = conversation.template_kwargs;
  variables["messages"] = guard_messages(context, conversation.messages);
  variables["tools"] = conversation.tools;
  if (!conversation.response_format.is_null()) variables["response_format"] = conversation.response_format;
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
  TurnMemory::Begin known = context.turns->recall(cache_namespace, *prompt);
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

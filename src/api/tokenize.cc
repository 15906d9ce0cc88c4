// POST /tokenize and /detokenize.
#include "api/chat_request.h"
#include "api/endpoints.h"
#include "api/prompts.h"
#include "text/tokenizer/tokenizer.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

Refusal need_tokenizer(const ServiceContext& context) {
  if (context.tokenizer != nullptr) return std::nullopt;
  return ApiError{400, "This server runs without a tokenizer (--skip-tokenizer-init)", {}, "no_tokenizer"};
}

Refusal tokenize_texts(const ServiceContext& context, const ordered_json& prompt, bool add_special_tokens,
                       ordered_json* answer) {
  const bool batch = prompt.is_array();
  ordered_json tokens = ordered_json::array();
  ordered_json counts = ordered_json::array();
  const size_t count = batch ? prompt.size() : 1;
  for (size_t i = 0; i < count; ++i) {
    const ordered_json& text = batch ? prompt[i] : prompt;
    if (!text.is_string()) {
      return ApiError{400,
                      fmt::format("prompt: got {}, expected a string or a list of strings", describe(text)),
                      "prompt",
                      {}};
    }
    const auto ids =
        encode_prompt(*context.tokenizer, text.get_ref<const std::string&>(), add_special_tokens);
    tokens.push_back(ids);
    counts.push_back(ids.size());
  }
  (*answer)["tokens"] = batch ? std::move(tokens) : std::move(tokens[0]);
  (*answer)["count"] = batch ? std::move(counts) : std::move(counts[0]);
  return std::nullopt;
}

Refusal tokenize(const ServiceContext& context, const ordered_json& body, ordered_json* answer) {
  if (Refusal refusal = need_tokenizer(context)) return refusal;
  Fields fields(body, "", "request", context.field_log);
  std::string model;
  fields.string("model", 4096, &model);
  bool add_special_tokens = true;
  fields.boolean("add_special_tokens", &add_special_tokens);
  const ordered_json* prompt = fields.any("prompt");
  Conversation conversation;
  read_conversation(context, model, fields, &conversation);
  if (!fields.failed() && (prompt == nullptr) == conversation.messages.is_null()) {
    fields.fail(prompt == nullptr ? "prompt" : "messages", "expected either prompt or messages");
  }
  if (Refusal refusal = fields.finish()) return refusal;
  if (Refusal refusal = check_model(context, model)) return refusal;
  if (prompt != nullptr) {
    if (Refusal refusal = tokenize_texts(context, *prompt, add_special_tokens, answer)) return refusal;
  } else {
    ChatPrompt chat;
    if (Refusal refusal = make_chat_prompt(context, conversation, {}, &chat)) return refusal;
    (*answer)["tokens"] = chat.ids;
    (*answer)["count"] = chat.ids.size();
  }
  (*answer)["max_model_len"] = context.card.context_length;
  return std::nullopt;
}

Refusal detokenize(const ServiceContext& context, const ordered_json& body, ordered_json* answer) {
  if (Refusal refusal = need_tokenizer(context)) return refusal;
  Fields fields(body, "", "request", context.field_log);
  std::string model;
  fields.string("model", 4096, &model);
  bool skip_special_tokens = true;
  fields.boolean("skip_special_tokens", &skip_special_tokens);
  const ordered_json* tokens = fields.list("tokens");
  if (tokens == nullptr) fields.fail("tokens", "is missing, expected a list of token ids");
  if (Refusal refusal = fields.finish()) return refusal;
  if (Refusal refusal = check_model(context, model)) return refusal;
  if (tokens->empty()) {
    (*answer)["text"] = "";
    return std::nullopt;
  }
  Prompts lists;
  if (Refusal refusal = read_ids(context, "tokens", *tokens, &lists)) return refusal;
  ordered_json texts = ordered_json::array();
  for (const auto& ids : lists.ids) texts.push_back(context.tokenizer->decode(ids, skip_special_tokens));
  (*answer)["text"] = lists.batch ? std::move(texts) : std::move(texts[0]);
  return std::nullopt;
}

using Work = Refusal (*)(const ServiceContext&, const ordered_json&, ordered_json*);

void answer_with(Work work, const ServiceContext& context, const http::Request& request,
                 http::ResponseWriter& writer) {
  ordered_json body;
  ordered_json answer = ordered_json::object();
  Refusal refusal = read_body(context, request, &body);
  if (!refusal) refusal = work(context, body, &answer);
  writer.send(refusal ? error_response(*refusal) : json_response(answer));
}

}  // namespace

void handle_tokenize(const ServiceContext& context, const http::Request& request,
                     http::ResponseWriter& writer) {
  answer_with(tokenize, context, request, writer);
}

void handle_detokenize(const ServiceContext& context, const http::Request& request,
                       http::ResponseWriter& writer) {
  answer_with(detokenize, context, request, writer);
}

}  // namespace fathom::api

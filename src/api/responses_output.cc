#include "api/responses_output.h"

#include <algorithm>
#include <ctime>
#include <utility>

#include "api/chat_output.h"
#include "api/responses_items.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

ordered_json usage_of(const Choice& choice) {
  const auto prompt = static_cast<int64_t>(choice.spec.prompt.size());
  const auto output = static_cast<int64_t>(choice.output_ids.size());
  return {{"input_tokens", prompt},
          {"input_tokens_details", {{"cached_tokens", choice.cached_tokens}, {"cache_write_tokens", 0}}},
          {"output_tokens", output},
          {"output_tokens_details", {{"reasoning_tokens", choice.answer.reasoning_tokens}}},
          {"total_tokens", prompt + output}};
}

ordered_json text_part(std::string text, ordered_json logprobs) {
  return {{"type", "output_text"},
          {"text", std::move(text)},
          {"annotations", ordered_json::array()},
          {"logprobs", std::move(logprobs)}};
}

ordered_json thought_part(std::string text) {
  return {{"type", "reasoning_text"}, {"text", std::move(text)}};
}

}  // namespace

ResponseBuilder::ResponseBuilder(const ServiceContext& context, const ResponsesRequest& request)
    : context_(context), request_(request) {
  response_ = {{"id", request.chat.options.rid},
               {"object", "response"},
               {"created_at", static_cast<int64_t>(std::time(nullptr))},
               {"status", "in_progress"},
               {"background", false},
               {"error", nullptr},
               {"incomplete_details", nullptr},
               {"instructions", nullptr},
               {"model", context.card.served_model_name},
               {"output", ordered_json::array()},
               {"previous_response_id", nullptr},
               {"store", false},
               {"truncation", "disabled"},
               {"usage", nullptr}};
  for (const auto& [name, value] : request.echo.items()) response_[name] = value;
}

void ResponseBuilder::tell(const char* type, ordered_json fields) {
  ordered_json event = {{"type", type}, {"sequence_number", sequence_++}};
  if (open_ != Open::kNothing) {
    event["output_index"] = items_ - 1;
    if (!fields.contains("item")) event["item_id"] = item_["id"];
  }
  for (auto& [name, value] : fields.items()) event[name] = std::move(value);
  events_.push_back(std::move(event));
}

void ResponseBuilder::tell_response(const char* type) {
  tell(type, {{"response", response_}});
}

void ResponseBuilder::tell_part(const char* type, ordered_json part) {
  tell(type, {{"content_index", 0}, {"part", std::move(part)}});
}

std::vector<ordered_json> ResponseBuilder::begin() {
  tell_response("response.created");
  tell_response("response.in_progress");
  return std::exchange(events_, {});
}

void ResponseBuilder::open_item(Open kind, ordered_json item) {
  open_ = kind;
  ++items_;
  item_ = std::move(item);
  text_.clear();
  logprobs_ = ordered_json::array();
  tell("response.output_item.added", {{"item", item_}});
  if (kind == Open::kReasoning) tell_part("response.content_part.added", thought_part(""));
  if (kind == Open::kMessage) tell_part("response.content_part.added", text_part("", ordered_json::array()));
}

void ResponseBuilder::close_reasoning() {
  tell("response.reasoning_text.done", {{"content_index", 0}, {"text", text_}});
  tell_part("response.content_part.done", thought_part(text_));
  item_["content"] = ordered_json::array({thought_part(text_)});
  if (request_.encrypted_reasoning) item_["encrypted_content"] = std::string(kPlainReasoning) + text_;
}

void ResponseBuilder::close_text(const Choice& choice) {
  for (ordered_json& entry : new_logprobs(choice)) logprobs_.push_back(std::move(entry));
  const ordered_json part = text_part(text_, logprobs_);
  tell("response.output_text.done", {{"content_index", 0}, {"text", text_}, {"logprobs", logprobs_}});
  tell_part("response.content_part.done", part);
  item_["content"] = ordered_json::array({part});
}

void ResponseBuilder::close_item(const Choice& choice, const char* status) {
  switch (open_) {
    case Open::kNothing:
      return;
    case Open::kReasoning:
      close_reasoning();
      break;
    case Open::kMessage:
      close_text(choice);
      break;
    case Open::kCall:
      tell("response.function_call_arguments.done", {{"name", item_["name"]}, {"arguments", text_}});
      item_["arguments"] = text_;
      break;
  }
  item_["status"] = status;
  tell("response.output_item.done", {{"item", item_}});
  response_["output"].push_back(std::move(item_));
  open_ = Open::kNothing;
}

// Those of the text: the thoughts' tokens have none.
ordered_json ResponseBuilder::new_logprobs(const Choice& choice) {
  if (!request_.chat.logprobs) return ordered_json::array();
  const auto thoughts = static_cast<size_t>(choice.answer.reasoning_tokens);
  const size_t first = std::max(logprobs_taken_, std::min(thoughts, choice.outputs.size()));
  logprobs_taken_ = choice.outputs.size();
  return chat_logprobs(context_, choice, first)["content"];
}

void ResponseBuilder::add_piece(const Choice& choice, const text::OutputPiece& piece) {
  const std::string hex = request_.chat.options.rid.substr(request_.chat.options.rid.find('_') + 1);
  const auto id = [&](const char* prefix) { return fmt::format("{}_{}_{}", prefix, hex, items_); };
  switch (piece.kind) {
    case Kind::kReasoning:
      if (open_ != Open::kReasoning) {
        close_item(choice, "completed");
        open_item(Open::kReasoning, {{"id", id("rs")},
                                     {"type", "reasoning"},
                                     {"status", "in_progress"},
                                     {"summary", ordered_json::array()},
                                     {"content", ordered_json::array()},
                                     {"encrypted_content", nullptr}});
      }
      text_ += piece.text;
      tell("response.reasoning_text.delta", {{"content_index", 0}, {"delta", piece.text}});
      break;
    case Kind::kContent: {
      if (open_ != Open::kMessage) {
        close_item(choice, "completed");
        open_item(Open::kMessage, {{"id", id("msg")},
                                   {"type", "message"},
                                   {"status", "in_progress"},
                                   {"role", "assistant"},
                                   {"content", ordered_json::array()}});
      }
      text_ += piece.text;
      ordered_json logprobs = new_logprobs(choice);
      for (const ordered_json& entry : logprobs) logprobs_.push_back(entry);
      tell("response.output_text.delta",
           {{"content_index", 0}, {"delta", piece.text}, {"logprobs", std::move(logprobs)}});
      break;
    }
    case Kind::kCall:
      close_item(choice, "completed");
      open_item(Open::kCall, {{"id", id("fc")},
                              {"type", "function_call"},
                              {"status", "in_progress"},
                              {"call_id", choice.answer.calls[calls_].id},
                              {"name", piece.text},
                              {"arguments", ""}});
      ++calls_;
      break;
    case Kind::kArguments:
      text_ += piece.text;
      tell("response.function_call_arguments.delta", {{"delta", piece.text}});
      break;
  }
}

void ResponseBuilder::finish(const Choice& choice) {
  const ChoiceFinish& end = *choice.finish;
  response_["usage"] = usage_of(choice);
  if (end.error || end.kind == FinishReason::Kind::kAbort) {
    close_item(choice, "incomplete");
    response_["status"] = "failed";
    response_["error"] = {{"code", "server_error"},
                          {"message", end.error ? end.error->message : "The request was aborted"}};
    return tell_response("response.failed");
  }
  if (end.kind == FinishReason::Kind::kLength) {
    close_item(choice, "incomplete");
    response_["status"] = "incomplete";
    response_["incomplete_details"] = {{"reason", "max_output_tokens"}};
    return tell_response("response.incomplete");
  }
  close_item(choice, "completed");
  response_["status"] = "completed";
  response_["completed_at"] = static_cast<int64_t>(std::time(nullptr));
  tell_response("response.completed");
}

std::vector<ordered_json> ResponseBuilder::advance(const Choice& choice, const Growth& growth) {
  for (const text::OutputPiece& piece : growth.pieces) add_piece(choice, piece);
  if (choice.finish) finish(choice);
  return std::exchange(events_, {});
}

}  // namespace fathom::api

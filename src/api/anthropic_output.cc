#include "api/anthropic_output.h"

#include <utility>

#include "api/anthropic_conversation.h"
#include "api/json_body.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;
using Kind = text::OutputPiece::Kind;

// Tokens read from the prefix cache are not among input_tokens, as in Anthropic's API. Writing to the cache
// is not counted: every prompt is kept.
ordered_json usage_of(const Choice& choice) {
  const auto prompt = static_cast<int64_t>(choice.spec.prompt.size());
  return {{"input_tokens", prompt - choice.cached_tokens},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", choice.cached_tokens},
          {"output_tokens", choice.output_ids.size()},
          {"output_tokens_details", {{"thinking_tokens", choice.answer.reasoning_tokens}}},
          {"service_tier", "standard"}};
}

const char* stop_reason(const MessagesRequest& request, const Choice& choice) {
  if (choice.finish->kind == FinishReason::Kind::kLength) {
    return request.chat.cut_by_context ? "model_context_window_exceeded" : "max_tokens";
  }
  if (choice.finish->matched_text) return "stop_sequence";
  return choice.answer.calls.empty() ? "end_turn" : "tool_use";
}

ordered_json stop_sequence(const Choice& choice) {
  return choice.finish->matched_text ? ordered_json(*choice.finish->matched_text) : ordered_json();
}

ordered_json message_head(const ServiceContext& context, const MessagesRequest& request) {
  return {{"id", request.chat.options.rid},
          {"type", "message"},
          {"role", "assistant"},
          {"model", context.card.served_model_name},
          {"content", ordered_json::array()},
          {"stop_reason", nullptr},
          {"stop_sequence", nullptr}};
}

ordered_json call_block(const ToolCall& call, ordered_json input) {
  return {{"type", "tool_use"}, {"id", call.id}, {"name", call.name}, {"input", std::move(input)}};
}

ordered_json input_of(const std::string& arguments) {
  if (arguments.find_first_not_of(" \t\r\n") == std::string::npos) return ordered_json::object();
  Result<ordered_json> input = parse_json_object(arguments);
  if (input.ok()) return std::move(*input);
  return {{kInvalidJson, arguments}};
}

}  // namespace

ordered_json anthropic_message(const ServiceContext& context, const MessagesRequest& request,
                               const Choice& choice) {
  ordered_json message = message_head(context, request);
  ordered_json& content = message["content"];
  const Answer& answer = choice.answer;
  if (!answer.reasoning.empty()) {
    content.push_back({{"type", "thinking"},
                       {"thinking", request.omit_thinking ? "" : answer.reasoning},
                       {"signature", request.chat.options.rid}});
  }
  if (!answer.content.empty()) content.push_back({{"type", "text"}, {"text", answer.content}});
  for (const ToolCall& call : answer.calls) content.push_back(call_block(call, input_of(call.arguments)));
  message["stop_reason"] = stop_reason(request, choice);
  message["stop_sequence"] = stop_sequence(choice);
  message["usage"] = usage_of(choice);
  return message;
}

void AnthropicEvents::open_block(Kind kind, ordered_json block) {
  close_block();
  open_ = kind;
  events_.push_back(
      {{"type", "content_block_start"}, {"index", blocks_}, {"content_block", std::move(block)}});
  ++blocks_;
}

void AnthropicEvents::add_delta(ordered_json delta) {
  events_.push_back({{"type", "content_block_delta"}, {"index", blocks_ - 1}, {"delta", std::move(delta)}});
}

void AnthropicEvents::close_block() {
  if (!open_) return;
  // Clients send a thinking block back only when it is signed. Nothing is hidden in ours, and nothing
  // checked.
  if (open_ == Kind::kReasoning) {
    add_delta({{"type", "signature_delta"}, {"signature", request_.chat.options.rid}});
  }
  events_.push_back({{"type", "content_block_stop"}, {"index", blocks_ - 1}});
  open_.reset();
}

void AnthropicEvents::add_piece(const Choice& choice, const text::OutputPiece& piece) {
  switch (piece.kind) {
    case Kind::kReasoning:
      if (open_ != Kind::kReasoning) {
        open_block(piece.kind, {{"type", "thinking"}, {"thinking", ""}, {"signature", ""}});
      }
      if (!request_.omit_thinking) add_delta({{"type", "thinking_delta"}, {"thinking", piece.text}});
      break;
    case Kind::kContent:
      if (open_ != Kind::kContent) open_block(piece.kind, {{"type", "text"}, {"text", ""}});
      add_delta({{"type", "text_delta"}, {"text", piece.text}});
      break;
    case Kind::kCall:
      open_block(piece.kind, call_block(choice.answer.calls[calls_], ordered_json::object()));
      ++calls_;
      break;
    case Kind::kArguments:
      add_delta({{"type", "input_json_delta"}, {"partial_json", piece.text}});
      break;
  }
}

std::vector<ordered_json> AnthropicEvents::advance(const Choice& choice, const Growth& growth) {
  if (!begun_) {
    begun_ = true;
    ordered_json message = message_head(context_, request_);
    message["usage"] = usage_of(choice);
    events_.push_back({{"type", "message_start"}, {"message", std::move(message)}});
    events_.push_back({{"type", "ping"}});
  }
  for (const text::OutputPiece& piece : growth.pieces) add_piece(choice, piece);
  if (choice.finish) {
    close_block();
    events_.push_back(
        {{"type", "message_delta"},
         {"delta",
          {{"stop_reason", stop_reason(request_, choice)}, {"stop_sequence", stop_sequence(choice)}}},
         {"usage", usage_of(choice)}});
    events_.push_back({{"type", "message_stop"}});
  }
  return std::exchange(events_, {});
}

}  // namespace fathom::api

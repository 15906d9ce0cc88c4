#include "api/chat_output.h"

#include <ctime>
#include <utility>

#include "api/cache_report.h"
#include "api/meta_info.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

ordered_json logprob_entry(const text::Tokenizer* tokenizer, int32_t token, float logprob) {
  ordered_json entry;
  entry["token"] = tokenizer != nullptr ? token_string(*tokenizer, token) : std::to_string(token);
  entry["bytes"] = tokenizer != nullptr ? token_bytes_json(*tokenizer, token) : ordered_json();
  entry["logprob"] = logprob_json(logprob);
  return entry;
}

ordered_json choice_logprobs(const ServiceContext& context, const ChatRequest& request, const Choice& choice,
                             size_t first) {
  return request.logprobs ? chat_logprobs(context, choice, first) : ordered_json();
}

// OpenAI's word for an answer that ends in calls, which nothing in the text has matched. A stop string that
// cut a call is told of instead: what there is of the arguments must not be taken for a call.
bool ends_in_calls(const Choice& choice) {
  const bool cut = choice.finish->matched_text && choice.answer.cut_call;
  return choice.finish->kind == FinishReason::Kind::kStop && !choice.answer.calls.empty() && !cut;
}

ordered_json chat_finish_reason(const Choice& choice) {
  return ends_in_calls(choice) ? "tool_calls" : finish_reason(*choice.finish);
}

ordered_json chat_matched_stop(const Choice& choice) {
  return ends_in_calls(choice) ? ordered_json() : matched_stop(*choice.finish);
}

void add_reasoning(const ServiceContext& context, const ordered_json& reasoning, ordered_json* message) {
  const ReasoningField field = context.options.reasoning_field;
  if (field != ReasoningField::kReasoning) (*message)["reasoning_content"] = reasoning;
  if (field != ReasoningField::kReasoningContent) (*message)["reasoning"] = reasoning;
}

ordered_json tool_calls_json(const std::vector<ToolCall>& calls) {
  if (calls.empty()) return nullptr;
  ordered_json list = ordered_json::array();
  for (size_t i = 0; i < calls.size(); ++i) {
    list.push_back({{"id", calls[i].id},
                    {"index", i},
                    {"type", "function"},
                    {"function", {{"name", calls[i].name}, {"arguments", calls[i].arguments}}}});
  }
  return list;
}

ordered_json message_json(const ServiceContext& context, const Answer& answer) {
  ordered_json message = {{"role", "assistant"}, {"content", answer.content}};
  add_reasoning(context, answer.reasoning.empty() ? ordered_json() : ordered_json(answer.reasoning),
                &message);
  message["tool_calls"] = tool_calls_json(answer.calls);
  return message;
}

}  // namespace

AnswerHead answer_head(const ServiceContext& context, const std::string& rid) {
  return {rid, context.card.served_model_name, static_cast<int64_t>(std::time(nullptr))};
}

ordered_json usage_json(std::span<const Choice> choices, size_t n) {
  int64_t prompt = 0;
  int64_t cached = 0;
  int64_t completion = 0;
  int64_t reasoning = 0;
  std::optional<SpeculationCounts> guessed;
  for (size_t i = 0; i < choices.size(); ++i) {
    completion += static_cast<int64_t>(choices[i].output_ids.size());
    reasoning += choices[i].answer.reasoning_tokens;
    if (const auto& counts = choices[i].speculation) {
      if (!guessed) guessed.emplace();
      guessed->draft_tokens += counts->draft_tokens;
      guessed->accepted_tokens += counts->accepted_tokens;
    }
    if (i % n != 0) continue;
    prompt += static_cast<int64_t>(choices[i].spec.prompt.size());
    cached += choices[i].cached_tokens;
  }
  ordered_json details = {{"reasoning_tokens", reasoning}};
  if (guessed) {
    details["accepted_prediction_tokens"] = guessed->accepted_tokens;
    details["rejected_prediction_tokens"] = guessed->draft_tokens - guessed->accepted_tokens;
  }
  return {{"prompt_tokens", prompt},
          {"total_tokens", prompt + completion},
          {"completion_tokens", completion},
          {"prompt_tokens_details", {{"cached_tokens", cached}}},
          {"completion_tokens_details", std::move(details)},
          {"reasoning_tokens", reasoning},
          {"prompt_cache_hit_tokens", cached},
          {"prompt_cache_miss_tokens", prompt - cached}};
}

const char* finish_reason(const ChoiceFinish& finish) {
  switch (finish.kind) {
    case FinishReason::Kind::kStop:
      return "stop";
    case FinishReason::Kind::kLength:
      return "length";
    case FinishReason::Kind::kAbort:
      return "abort";
  }
  return "abort";
}

ordered_json matched_stop(const ChoiceFinish& finish) {
  if (finish.matched_text) return *finish.matched_text;
  if (finish.matched_token) return *finish.matched_token;
  return nullptr;
}

ordered_json chat_logprobs(const ServiceContext& context, const Choice& choice, size_t first) {
  ordered_json content = ordered_json::array();
  for (size_t i = first; i < choice.outputs.size(); ++i) {
    const TokenOutput& output = choice.outputs[i];
    ordered_json entry = logprob_entry(context.tokenizer, output.token, output.logprob);
    ordered_json& top = entry["top_logprobs"] = ordered_json::array();
    for (const TokenLogprob& other : output.top) {
      top.push_back(logprob_entry(context.tokenizer, other.token, other.logprob));
    }
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}};
}

ordered_json chat_completion(const ServiceContext& context, const ChatRequest& request,
                             const AnswerHead& head, const RequestRun& run, double seconds) {
  ordered_json answer = {
      {"id", head.id}, {"object", "chat.completion"}, {"created", head.created}, {"model", head.model}};
  ordered_json& choices = answer["choices"] = ordered_json::array();
  for (const Choice& choice : run.choices()) {
    ordered_json entry = {{"index", choice.index},
                          {"message", message_json(context, choice.answer)},
                          {"logprobs", choice_logprobs(context, request, choice, 0)},
                          {"finish_reason", chat_finish_reason(choice)},
                          {"matched_stop", chat_matched_stop(choice)}};
    if (request.return_prompt_token_ids) entry["prompt_token_ids"] = choice.spec.prompt;
    if (request.return_token_ids) entry["response_token_ids"] = choice.output_ids;
    if (request.return_meta_info) entry["meta_info"] = meta_info(context, choice, head.id, seconds, {});
    choices.push_back(std::move(entry));
  }
  answer["usage"] = usage_json(run.choices(), run.choices().size());
  add_cache_miss(context, run.choices(), &answer["usage"]);
  answer["metadata"] = {{"weight_version", kWeightVersion}};
  return answer;
}

ordered_json ChatChunks::chunk(const Choice& choice, ordered_json delta, ordered_json logprobs) const {
  ordered_json chunk = {{"id", head_.id},
                        {"object", "chat.completion.chunk"},
                        {"created", head_.created},
                        {"model", head_.model}};
  // Clients of the reference system look for it in every chunk.
  if (!delta.contains("reasoning_content") &&
      context_.options.reasoning_field != ReasoningField::kReasoning) {
    delta["reasoning_content"] = nullptr;
  }
  ordered_json entry = {{"index", choice.index},
                        {"delta", std::move(delta)},
                        {"logprobs", std::move(logprobs)},
                        {"finish_reason", nullptr},
                        {"matched_stop", nullptr}};
  chunk["choices"] = ordered_json::array({std::move(entry)});
  if (request_.stream.continuous_usage) chunk["usage"] = usage_json({&choice, 1}, 1);
  return chunk;
}

ordered_json ChatChunks::delta(const Choice& choice, const text::OutputPiece& piece, State* state) const {
  using Kind = text::OutputPiece::Kind;
  ordered_json delta = ordered_json::object();
  ordered_json call;
  switch (piece.kind) {
    case Kind::kContent:
      delta["content"] = piece.text;
      break;
    case Kind::kReasoning:
      add_reasoning(context_, piece.text, &delta);
      break;
    case Kind::kCall:
      call = {{"index", state->calls},
              {"id", choice.answer.calls[state->calls].id},
              {"type", "function"},
              {"function", {{"name", piece.text}, {"arguments", ""}}}};
      ++state->calls;
      break;
    case Kind::kArguments:
      call = {{"index", state->calls - 1}, {"function", {{"arguments", piece.text}}}};
      break;
  }
  if (!call.is_null()) delta["tool_calls"] = ordered_json::array({std::move(call)});
  return delta;
}

std::vector<ordered_json> ChatChunks::advance(const Choice& choice, const Growth& growth) {
  if (states_.size() <= choice.index) states_.resize(choice.index + 1);
  State& state = states_[choice.index];
  std::vector<ordered_json> chunks;
  if (!state.begun) {
    state.begun = true;
    chunks.push_back(chunk(choice, {{"role", "assistant"}, {"content", ""}}, nullptr));
  }
  const auto logprobs = [&]() -> ordered_json {
    if (state.logprobs_sent == choice.outputs.size()) return nullptr;
    const size_t first = std::exchange(state.logprobs_sent, choice.outputs.size());
    return choice_logprobs(context_, request_, choice, first);
  };
  for (const text::OutputPiece& piece : growth.pieces) {
    chunks.push_back(chunk(choice, delta(choice, piece, &state), logprobs()));
  }
  // Logprobs whose text is still held back wait for it, or for the finish.
  if (choice.finish && state.logprobs_sent < choice.outputs.size()) {
    chunks.push_back(chunk(choice, {{"content", ""}}, logprobs()));
  }
  if (choice.finish) {
    ordered_json last = chunk(choice, ordered_json::object(), nullptr);
    last["choices"][0]["finish_reason"] = chat_finish_reason(choice);
    last["choices"][0]["matched_stop"] = chat_matched_stop(choice);
    chunks.push_back(std::move(last));
  }
  return chunks;
}

ordered_json ChatChunks::usage_chunk(const std::vector<Choice>& choices) const {
  ordered_json chunk = {{"id", head_.id},
                        {"object", "chat.completion.chunk"},
                        {"created", head_.created},
                        {"model", head_.model},
                        {"choices", ordered_json::array()},
                        {"usage", usage_json(choices, choices.size())}};
  add_cache_miss(context_, choices, &chunk["usage"]);
  return chunk;
}

}  // namespace fathom::api

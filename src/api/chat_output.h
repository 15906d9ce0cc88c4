// Chat completions as OpenAI's JSON.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "api/chat_request.h"
#include "api/request_run.h"

namespace fathom::api {

// What stands at the top of every object of one answer.
struct AnswerHead {
  std::string id;
  std::string model;
  int64_t created = 0;  // Unix time, seconds
};
AnswerHead answer_head(const ServiceContext& context, const std::string& rid);

// {prompt_tokens, completion_tokens, total_tokens, ...}; a prompt counts once for its `n` choices.
nlohmann::ordered_json usage_json(std::span<const Choice> choices, size_t n);

const char* finish_reason(const ChoiceFinish& finish);            // "stop", "length" or "abort"
nlohmann::ordered_json matched_stop(const ChoiceFinish& finish);  // a token id, a stop string, or null

// {"content": [{token, bytes, logprob, top_logprobs}]} of the outputs from `first` on.
nlohmann::ordered_json chat_logprobs(const ServiceContext& context, const Choice& choice, size_t first);

nlohmann::ordered_json chat_completion(const ServiceContext& context, const ChatRequest& request,
                                       const AnswerHead& head, const RequestRun& run, double seconds);

// The chunks of one streamed choice: its role, its text, its finish.
class ChatChunks {
 public:
  ChatChunks(const ServiceContext& context, const ChatRequest& request, const AnswerHead& head)
      : context_(context), request_(request), head_(head) {}

  // The chunks for what came to `choice`.
  std::vector<nlohmann::ordered_json> advance(const Choice& choice, const Growth& growth);
  nlohmann::ordered_json usage_chunk(const std::vector<Choice>& choices) const;

 private:
  struct State {
    bool begun = false;
    size_t calls = 0;  // begun
    size_t logprobs_sent = 0;
  };

  nlohmann::ordered_json chunk(const Choice& choice, nlohmann::ordered_json delta,
                               nlohmann::ordered_json logprobs) const;
  nlohmann::ordered_json delta(const Choice& choice, const text::OutputPiece& piece, State* state) const;

  const ServiceContext& context_;
  const ChatRequest& request_;
  const AnswerHead& head_;
  std::vector<State> states_;
};

}  // namespace fathom::api

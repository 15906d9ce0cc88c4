// The stream loop: hands prompts to the RequestSink, turns the tokens that come back into text, ends a choice
// at a stop string, and frees everything when the client vanishes. Used by one handler thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "api/answer.h"
#include "api/context.h"
#include "api/run_tally.h"
#include "api/token_text.h"
#include "core/request.h"
#include "http/message.h"

namespace fathom::api {

// One request of the sink: one prompt, one choice.
struct RunSpec {
  std::string rid;  // what the client may cancel it by; choices may share one
  std::vector<int32_t> prompt;
  SamplingParams sampling;
  LogprobParams logprobs;
  std::shared_ptr<const TokenMaskSource> mask;  // null: any output
  TextOptions text;
  std::optional<AnswerOptions> answer;  // nothing: the text is not taken apart
  int32_t priority = 0;
  std::string cache_namespace;
  std::optional<int32_t> data_parallel_rank;
  bool explain_cache = false;
  // The text of a chat's prompt, for TurnMemory; null: the answer need not be remembered.
  std::shared_ptr<const std::string> turn_text;
};

struct ChoiceFinish {
  FinishReason::Kind kind = FinishReason::Kind::kStop;
  std::optional<int32_t> matched_token;
  std::optional<std::string> matched_text;
  std::optional<Error> error;
};

// What a choice has become so far. Never copied: it may hold a long prompt and millions of log-probabilities.
struct Choice {
  Choice() = default;
  Choice(Choice&&) = default;
  Choice& operator=(Choice&&) = default;

  size_t index = 0;  // in the order of the specs
  RunSpec spec;
  std::string text;
  Answer answer;  // the parts of the text, where the spec asks for them
  std::vector<int32_t> output_ids;
  std::vector<TokenOutput> outputs;          // one a token, when logprobs were asked for
  std::vector<TokenOutput> prompt_logprobs;  // the prompt's last positions, one entry each
  int32_t cached_tokens = 0;
  int32_t retractions = 0;
  std::optional<CacheMiss> cache_miss;           // where the spec asks for it
  std::optional<SpeculationCounts> speculation;  // nothing where no tokens are guessed
  std::optional<ChoiceFinish> finish;
};

// What came to a choice: the end of its text, and the same in parts.
struct Growth {
  std::string text;
  std::vector<text::OutputPiece> pieces;
  bool more = false;  // has come already
};

class RequestRun {
 public:
  // A choice grew. False stops the run.
  using OnDelta = std::function<bool(const Choice& choice, const Growth& growth)>;
  // Nothing came for ServiceOptions::keep_alive_seconds. False stops the run.
  using OnIdle = std::function<bool()>;

  // `context` and `writer` must outlive the run.
  RequestRun(const ServiceContext& context, http::ResponseWriter& writer);
  // Cancels what is not finished.
  ~RequestRun();
  RequestRun(const RequestRun&) = delete;
  RequestRun& operator=(const RequestRun&) = delete;

  // Submits all or, when the sink refuses one or an id is in use, none.
  Refusal start(std::vector<RunSpec> specs);

  // Blocks until every choice has finished: true. False when the client is gone or a callback stopped it.
  bool run(const OnDelta& on_delta, const OnIdle& on_idle);

  const std::vector<Choice>& choices() const { return choices_; }
  // The first error that ended a choice (a device fault, a full pool), if any.
  Refusal failure() const;

 private:
  struct Running {
    std::string sink_id;
    std::shared_ptr<TokenStream> stream;
    std::unique_ptr<TokenText> text;     // null without a tokenizer
    std::unique_ptr<AnswerParts> parts;  // null where the text is not taken apart
    std::shared_ptr<CancelSwitch> cancel;
    size_t logprobs = 0;  // log-probabilities kept
  };

  // Takes an event into the choice.
  Growth absorb(size_t index, TokenEvent event);
  std::string take_tokens(size_t index, TokenEvent* event);
  void end_by_stop_text(size_t index, std::string matched);
  // Ends a choice that keeps more log-probabilities than its share of what one request may.
  void count_logprobs(size_t index, const std::vector<TokenOutput>& outputs);

  const ServiceContext& context_;
  http::ResponseWriter& writer_;
  std::vector<std::string> rids_;  // registered ones
  std::vector<Choice> choices_;
  std::vector<Running> running_;   // beside choices_
  std::optional<RunTally> tally_;  // once started
};

}  // namespace fathom::api

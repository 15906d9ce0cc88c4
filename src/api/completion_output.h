// Text completions as OpenAI's JSON.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "api/chat_output.h"
#include "api/prompts.h"
#include "api/request_options.h"
#include "api/request_run.h"
#include "api/sampling_fields.h"

namespace fathom::api {

struct CompletionRequest {
  Prompts prompts;
  SamplingRequest sampling;
  bool echo = false;
  bool logprobs = false;
  int32_t top_logprobs = 0;
  StreamOptions stream;
  RequestOptions options;
};

// Choice i belongs to prompt i / n.
nlohmann::ordered_json completion_json(const ServiceContext& context, const CompletionRequest& request,
                                       const AnswerHead& head, const std::vector<Choice>& choices);

class CompletionChunks {
 public:
  CompletionChunks(const ServiceContext& context, const CompletionRequest& request, const AnswerHead& head)
      : context_(context), request_(request), head_(head) {}

  // The chunk for what `choice` has become since the last call, if there is anything to tell. The last one
  // carries the finish reason.
  std::optional<nlohmann::ordered_json> advance(const Choice& choice, const std::string& new_text);
  nlohmann::ordered_json usage_chunk(const std::vector<Choice>& choices) const;

 private:
  struct State {
    bool begun = false;
    size_t logprobs_sent = 0;
    int64_t offset = 0;  // characters of the tokens sent
  };
  const ServiceContext& context_;
  const CompletionRequest& request_;
  const AnswerHead& head_;
  std::vector<State> states_;
};

}  // namespace fathom::api

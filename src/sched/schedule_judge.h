// What a request gets from the FakeExecutor when it runs alone, for tests.
#pragma once

#include <algorithm>
#include <vector>

#include "core/request.h"
#include "sched/fake_executor.h"

namespace fathom::sched {

struct AloneAnswer {
  std::vector<int32_t> tokens;
  std::vector<TokenOutput> prompt_logprobs;
  FinishReason::Kind finish = FinishReason::Kind::kLength;
};

inline AloneAnswer answer_alone(const GenerateRequest& request, const ExecutorLimits& limits,
                                int32_t pool_tokens) {
  AloneAnswer answer;
  uint64_t kv = 0;
  auto prompt_len = static_cast<int32_t>(request.prompt.size());
  for (int32_t i = 0; i < prompt_len; ++i) {
    int32_t token = request.prompt[static_cast<size_t>(i)];
    if (request.logprobs.prompt_start >= 0 && i >= std::max(1, request.logprobs.prompt_start)) {
      answer.prompt_logprobs.push_back({token, FakeExecutor::prompt_logprob(kv, token), {}, {}});
    }
    kv = FakeExecutor::next_kv(kv, token);
  }
  int32_t most = std::min(
      {request.sampling.max_new_tokens, limits.max_context - prompt_len, pool_tokens - prompt_len + 1});
  const auto& stops = request.sampling.stop_token_ids;
  while (static_cast<int32_t>(answer.tokens.size()) < most) {
    int32_t token = FakeExecutor::choose(kv, request.sampling, answer.tokens, limits.vocab_size);
    answer.tokens.push_back(token);
    if (std::find(stops.begin(), stops.end(), token) != stops.end()) {
      answer.finish = FinishReason::Kind::kStop;
      break;
    }
    kv = FakeExecutor::next_kv(kv, token);
  }
  return answer;
}

}  // namespace fathom::sched

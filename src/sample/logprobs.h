// Log-probabilities of the model's own distribution: the log-softmax of untouched logits, natural log.
#pragma once

#include <cstdint>
#include <vector>

#include "core/sampling.h"

namespace fathom::sample {

// log(sum(exp(logits))), stable; -inf logits count as probability 0.
double log_sum_exp(const float* logits, int64_t vocab);

// The `count` largest, largest first, the lower id first among equals.
std::vector<TokenLogprob> top_logprobs(const float* logits, int64_t vocab, double log_sum, int32_t count);
// The same into memory that is there.
void top_logprobs(const float* logits, int64_t vocab, double log_sum, int32_t count,
                  std::vector<TokenLogprob>* found);

// What `params` asks to be told about a position whose logits are `logits`; `token` is the one that stands
// there.
TokenOutput describe_token(const float* logits, int64_t vocab, int32_t token, const LogprobParams& params);

}  // namespace fathom::sample

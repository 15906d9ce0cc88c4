// Short ways to say sampling parameters, for the tests and benchmarks of this room.
#pragma once

#include <utility>
#include <vector>

#include "core/sampling.h"

namespace fathom::sample {

// The parameters of a choice that a case is about; the rest of SamplingParams at its defaults.
struct Choice {
  float temperature = 1.0F;
  float top_p = 1.0F;
  int32_t top_k = -1;
  float min_p = 0.0F;
  float repetition_penalty = 1.0F;
  float frequency_penalty = 0.0F;
  float presence_penalty = 0.0F;
  uint64_t seed = 0;

  operator SamplingParams() const {  // NOLINT: implicit on purpose
    SamplingParams params;
    params.temperature = temperature;
    params.top_p = top_p;
    params.top_k = top_k;
    params.min_p = min_p;
    params.repetition_penalty = repetition_penalty;
    params.frequency_penalty = frequency_penalty;
    params.presence_penalty = presence_penalty;
    params.seed = seed;
    return params;
  }
};

inline LogprobParams output_logprobs(int32_t top, std::vector<int32_t> token_ids = {}) {
  LogprobParams params;
  params.output = true;
  params.top = top;
  params.token_ids = std::move(token_ids);
  return params;
}

}  // namespace fathom::sample

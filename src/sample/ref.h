// The choice of a token as its definition says it, with a full sort and in double precision: what sampler.h
// is tested against.
#pragma once

#include <cstdint>
#include <vector>

#include "core/sampling.h"

namespace fathom::sample {

// The tokens that may be chosen, by id, and their probabilities among themselves. Greedy: one token.
struct ReferenceToken {
  int32_t token = 0;
  double probability = 0.0;
};
std::vector<ReferenceToken> reference_distribution(const float* logits, int64_t vocab,
                                                   const SamplingParams& params);

// The token whose interval of the cumulated distribution holds `draw`, 0 <= draw < 1.
int32_t reference_choice(const std::vector<ReferenceToken>& distribution, double draw);

}  // namespace fathom::sample

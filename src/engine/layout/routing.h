// Which experts the tokens of a step go to, drawn at random: how many experts a batch reads, and how uneven
// that is between ranks that have some of them each.
#pragma once

#include <cstdint>
#include <vector>

#include "model/config.h"

namespace fathom::engine {

struct RoutingOptions {
  // Deviation of each expert's fixed bias, added to scores between 0 and 1. 0: every expert is as likely as
  // any other, as training strives for. Dummy weights have kDummyBias.
  double bias_deviation = 0.0;
  int32_t trials = 8;
  uint64_t seed = 1;
};
// Of --load-format dummy, whose e_score_correction_bias has 0.05: fitted to whole steps, for its logits
// deviate by less than one and are not independent.
inline constexpr double kDummyBias = 0.07;

// Of each trial, for each expert, the tokens that go to it. Gate logits are independent, of unit deviation,
// and go through the model's own rule (groups, top K).
std::vector<std::vector<int32_t>> draw_routing(const model::ModelConfig& config, int64_t tokens,
                                               const RoutingOptions& options);

}  // namespace fathom::engine

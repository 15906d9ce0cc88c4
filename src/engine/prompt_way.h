// Which way prompt tokens attend on the CPU. Un-absorbed attention projects keys and values anew from the
// latents of everything before a row, so that a few tokens after a long prefix take the time of that prefix;
// absorbed attention, the way of output tokens, takes about three times as long for each pair of a query and
// a key, and projects nothing. The results agree up to float32's rounding. Where products round activations
// to bfloat16 that grows into other tokens: there, and where every bit shall be the same however a prompt is
// cut, only a long prompt's last tokens are absorbed, by a rule that nothing but the prompt decides
// (ExecutorLimits::extend_end).
//
// A function of the row alone: the same on all ranks.
#pragma once

#include <cstdint>

#include "model/config.h"

namespace fathom::engine {

// ExecutorLimits::absorbed_tail. Chosen, not tuned: the last tokens have a step of their own, and projecting
// so many tokens takes 5 ms (19 us each; the demo model on two Zen 4 cores, where a step takes 17).
inline constexpr int32_t kAbsorbedTail = 256;

class PromptWay {
 public:
  PromptWay() = default;  // un-absorbed, always
  explicit PromptWay(const model::ModelConfig& config);

  // Whether `count` prompt tokens after `start` others, of which the cache has the latents, attend faster
  // absorbed.
  bool absorbs(int64_t start, int64_t count) const;
  // After a long prefix, rows of at most so many tokens do.
  int64_t most_tokens() const { return wider_ > 0 ? projection_ / wider_ : 0; }

 private:
  // Of a head, in multiplications of attention's pace: what projecting a place takes, and what absorbed
  // attention has more for each pair of a query and a key. What new tokens take beside is the same either
  // way: their keys and values are projected, or their queries and outputs absorbed.
  int64_t projection_ = 0, wider_ = 0;
};

}  // namespace fathom::engine

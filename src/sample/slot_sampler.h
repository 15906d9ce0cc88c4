// The sampling state of one running sequence: its parameters and what its tokens so far change about them.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "core/executor.h"
#include "core/sampling.h"

namespace fathom::sample {

class SlotSampler {
 public:
  SlotSampler() = default;
  // `init.output` restores a preempted sequence: its counts, and the index of its next draw.
  explicit SlotSampler(const SlotInit& init);

  // A chosen token; call once for each, in order.
  void accept(int32_t token);

  const SamplingParams& params() const { return params_; }
  const LogprobParams& logprobs() const { return logprobs_; }
  int64_t generated() const { return generated_; }

  // The token that must come next whatever the logits say, or -1.
  int32_t forced() const { return thinking_.forced(params_.thinking); }

  // Whether the logits must be changed before choosing.
  bool adjusts() const;
  // Adds logit_bias, applies the penalties, and bans the stop ids before min_new_tokens, in place. Appends
  // each changed token with its value before to `changed`, once; null when nobody needs the old values.
  void adjust(float* logits, int64_t vocab, std::vector<std::pair<int32_t, float>>* changed) const;

 private:
  bool penalises() const;

  SamplingParams params_;
  ThinkingState thinking_;
  LogprobParams logprobs_;
  int64_t generated_ = 0;
  std::unordered_map<int32_t, int32_t> output_counts_;  // kept only when a penalty needs them
  std::unordered_set<int32_t> prompt_tokens_;           // kept only for the repetition penalty
};

}  // namespace fathom::sample

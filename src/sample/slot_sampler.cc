#include "sample/slot_sampler.h"

#include <limits>

namespace fathom::sample {

SlotSampler::SlotSampler(const SlotInit& init) : params_(init.sampling), logprobs_(init.logprobs) {
  thinking_.thought = params_.thinking.begun;
  if (params_.repetition_penalty != 1.0F) prompt_tokens_.insert(init.prompt.begin(), init.prompt.end());
  for (const int32_t token : init.output) accept(token);
}

bool SlotSampler::penalises() const {
  return params_.repetition_penalty != 1.0F || params_.frequency_penalty != 0.0F ||
         params_.presence_penalty != 0.0F;
}

void SlotSampler::accept(int32_t token) {
  ++generated_;
  thinking_.accept(params_.thinking, token);
  if (penalises()) ++output_counts_[token];
}

bool SlotSampler::adjusts() const {
  return penalises() || !params_.logit_bias.empty() || generated_ < params_.min_new_tokens;
}

void SlotSampler::adjust(float* logits, int64_t vocab,
                         std::vector<std::pair<int32_t, float>>* changed) const {
  std::unordered_set<int32_t> noted;
  const auto change = [&](int32_t token, float value) {
    if (changed != nullptr && noted.insert(token).second) changed->emplace_back(token, logits[token]);
    logits[token] = value;
  };
  const auto inside = [&](int32_t token) { return token >= 0 && token < vocab; };

  for (const auto& [token, bias] : params_.logit_bias) {
    if (inside(token)) change(token, logits[token] + bias);
  }
  const float repetition = params_.repetition_penalty;
  const auto repeat = [&](int32_t token) {
    const float value = logits[token];
    change(token, value > 0.0F ? value / repetition : value * repetition);
  };
  if (repetition != 1.0F) {
    for (const int32_t token : prompt_tokens_) {
      if (inside(token)) repeat(token);
    }
  }
  for (const auto& [token, count] : output_counts_) {
    if (!inside(token)) continue;
    if (repetition != 1.0F && prompt_tokens_.count(token) == 0) repeat(token);
    const float penalty = params_.frequency_penalty * static_cast<float>(count) + params_.presence_penalty;
    if (penalty != 0.0F) change(token, logits[token] - penalty);
  }
  if (generated_ < params_.min_new_tokens) {
    for (const int32_t token : params_.stop_token_ids) {
      if (inside(token)) change(token, -std::numeric_limits<float>::infinity());
    }
  }
}

}  // namespace fathom::sample

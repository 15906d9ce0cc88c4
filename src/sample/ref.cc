#include "sample/ref.h"

#include <algorithm>
#include <cmath>

namespace fathom::sample {

std::vector<ReferenceToken> reference_distribution(const float* logits, int64_t vocab,
                                                   const SamplingParams& params) {
  const float* best = std::max_element(logits, logits + vocab);
  const auto best_token = static_cast<int32_t>(best - logits);
  if (params.greedy() || !std::isfinite(*best)) return {{best_token, 1.0}};

  std::vector<ReferenceToken> tokens;
  double total = 0.0;
  for (int64_t i = 0; i < vocab; ++i) {
    const double weight = std::exp((static_cast<double>(logits[i]) - *best) / params.temperature);
    tokens.push_back({static_cast<int32_t>(i), weight});
    total += weight;
  }
  // Most likely first; the logits decide, so that tokens that differ are never made equal by rounding.
  std::sort(tokens.begin(), tokens.end(), [&](const ReferenceToken& a, const ReferenceToken& b) {
    return logits[a.token] != logits[b.token] ? logits[a.token] > logits[b.token] : a.token < b.token;
  });
  std::vector<ReferenceToken> kept;
  double before = 0.0;  // weight of the tokens that are more likely
  for (const ReferenceToken& token : tokens) {
    if (params.top_k > 0 && kept.size() >= static_cast<size_t>(params.top_k)) break;
    if (params.top_p < 1.0F && before >= static_cast<double>(params.top_p) * total) break;
    if (token.probability < params.min_p) break;  // the most likely token weighs 1
    kept.push_back(token);
    before += token.probability;
  }
  for (ReferenceToken& token : kept) token.probability /= before;
  std::sort(kept.begin(), kept.end(), [](const auto& a, const auto& b) { return a.token < b.token; });
  return kept;
}

int32_t reference_choice(const std::vector<ReferenceToken>& distribution, double draw) {
  double sum = 0.0;
  for (const ReferenceToken& token : distribution) {
    sum += token.probability;
    if (draw < sum) return token.token;
  }
  return distribution.back().token;
}

}  // namespace fathom::sample

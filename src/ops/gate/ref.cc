#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

#include "ops/gate/gate.h"

namespace fathom::ops {
namespace {

using Values = std::vector<float>;

constexpr float kOut = -std::numeric_limits<float>::infinity();

// Indices of the `count` largest, best first, lower index first among equals; NaN counts as -inf.
std::vector<int32_t> best(Values values, int32_t count) {
  for (float& value : values) {
    if (std::isnan(value)) value = kOut;
  }
  std::vector<int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return values[static_cast<size_t>(a)] > values[static_cast<size_t>(b)];
  });
  order.resize(static_cast<size_t>(count));
  return order;
}

// In double, then rounded: choices are made among float32 scores, as in the models' own code, where large
// logits give equal ones.
Values scores_of(const float* logits, const GateParams& params) {
  std::vector<double> scores(logits, logits + params.experts);
  if (params.scoring == GateParams::Scoring::kSigmoid) {
    for (double& score : scores) score = 1.0 / (1.0 + std::exp(-score));
  } else {
    const double top = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (double& score : scores) sum += score = std::exp(score - top);
    for (double& score : scores) score /= sum;
  }
  Values rounded(scores.size());
  std::transform(scores.begin(), scores.end(), rounded.begin(),
                 [](double v) { return static_cast<float>(v); });
  return rounded;
}

// Puts the experts of all but the best groups to `out`. A group counts by the sum of its `members` best.
void limit_groups(Values& choice, const GateParams& params, size_t members, float out) {
  const auto size = static_cast<size_t>(params.experts / params.groups);
  Values group_scores;
  for (size_t g = 0; g < static_cast<size_t>(params.groups); ++g) {
    Values group(choice.begin() + static_cast<ptrdiff_t>(g * size),
                 choice.begin() + static_cast<ptrdiff_t>((g + 1) * size));
    for (float& score : group) {
      if (std::isnan(score)) score = kOut;
    }
    std::sort(group.begin(), group.end(), std::greater<>());
    const auto end = group.begin() + static_cast<ptrdiff_t>(std::min(members, size));
    group_scores.push_back(std::accumulate(group.begin(), end, 0.0F));
  }
  std::vector<bool> kept(static_cast<size_t>(params.groups));
  for (const int32_t g : best(group_scores, params.top_groups)) kept[static_cast<size_t>(g)] = true;
  for (size_t e = 0; e < choice.size(); ++e) {
    if (!kept[e / size]) choice[e] = out;
  }
}

}  // namespace

void gate_reference(device::Launch&, const GateArgs& args) {
  const GateParams& params = args.params;
  for (int64_t t = 0; t < args.logits.dim(0); ++t) {
    Values scores = scores_of(args.logits.row<float>(t), params);
    Values choice = scores;
    if (params.method == GateParams::Method::kGroupLimitedGreedy) {
      limit_groups(choice, params, 1, 0.0F);
      scores = choice;
    } else if (params.method == GateParams::Method::kNoAuxTc) {
      for (size_t e = 0; e < choice.size(); ++e) choice[e] += args.bias[e];
      limit_groups(choice, params, 2, kOut);
    }
    const auto chosen = best(choice, params.top_k);
    double factor = params.scaling;
    if (params.normalise) {
      double sum = 0;
      for (const int32_t e : chosen) sum += scores[static_cast<size_t>(e)];
      factor /= sum + 1e-20;
    }
    for (size_t k = 0; k < chosen.size(); ++k) {
      args.ids.row<int32_t>(t)[k] = chosen[k];
      args.weights.row<float>(t)[k] = static_cast<float>(scores[static_cast<size_t>(chosen[k])] * factor);
    }
  }
}

}  // namespace fathom::ops

#include "engine/layout/routing.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <numeric>

#include "base/random.h"

namespace fathom::engine {
namespace {

using Method = ops::GateParams::Method;

// Box and Muller's transform.
double normal(uint64_t seed, uint64_t stream, uint64_t counter) {
  const double u = 1.0 - random_uniform(seed, stream, 2 * counter);
  const double v = random_uniform(seed, stream, 2 * counter + 1);
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

double group_score(Method method, std::vector<double>::iterator begin, std::vector<double>::iterator end) {
  std::vector<double> best(2, -1e30);
  std::partial_sort_copy(begin, end, best.begin(), best.end(), std::greater<>());
  return method == Method::kNoAuxTc ? best[0] + best[1] : best[0];
}

// Takes the groups that are not among the best out of the choice.
void keep_best_groups(const ops::GateParams& gate, std::vector<double>& scores) {
  const auto size = static_cast<std::ptrdiff_t>(scores.size()) / gate.groups;
  std::vector<std::pair<double, int32_t>> groups;
  for (int32_t g = 0; g < gate.groups; ++g) {
    const auto begin = scores.begin() + g * size;
    groups.emplace_back(group_score(gate.method, begin, begin + size), g);
  }
  std::partial_sort(groups.begin(), groups.begin() + gate.top_groups, groups.end(), std::greater<>());
  for (size_t i = static_cast<size_t>(gate.top_groups); i < groups.size(); ++i) {
    std::fill_n(scores.begin() + groups[i].second * size, size, -1e30);
  }
}

}  // namespace

std::vector<std::vector<int32_t>> draw_routing(const model::ModelConfig& config, int64_t tokens,
                                               const RoutingOptions& options) {
  const auto experts = static_cast<size_t>(config.num_experts);
  const ops::GateParams& gate = config.gate;
  const bool groups = gate.method != Method::kGreedy && gate.top_groups < gate.groups;
  std::vector<std::vector<int32_t>> trials;
  std::vector<double> bias(experts), scores(experts);
  std::vector<size_t> order(experts);
  for (int32_t trial = 0; trial < options.trials; ++trial) {
    const auto stream = static_cast<uint64_t>(trial) * 2;
    for (size_t e = 0; e < experts; ++e) bias[e] = options.bias_deviation * normal(options.seed, stream, e);
    auto& rows = trials.emplace_back(experts, 0);
    for (int64_t t = 0; t < tokens; ++t) {
      for (size_t e = 0; e < experts; ++e) {
        const double logit = normal(options.seed, stream + 1, static_cast<uint64_t>(t) * experts + e);
        scores[e] = 1.0 / (1.0 + std::exp(-logit)) + bias[e];
      }
      if (groups) keep_best_groups(gate, scores);
      std::iota(order.begin(), order.end(), size_t{0});
      std::nth_element(order.begin(), order.begin() + gate.top_k - 1, order.end(),
                       [&](size_t a, size_t b) { return scores[a] > scores[b]; });
      for (int32_t k = 0; k < gate.top_k; ++k) ++rows[order[static_cast<size_t>(k)]];
    }
  }
  return trials;
}

}  // namespace fathom::engine

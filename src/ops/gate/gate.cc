#include "ops/gate/gate.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "base/check.h"
#include "ops/attention/scratch.h"
#include "ops/implementation.h"

namespace fathom::ops {
namespace {

constexpr float kOut = -std::numeric_limits<float>::infinity();
constexpr int64_t kGrain = 512;  // exponentials of a piece of work: about 5 us

// One token's memory.
struct Row {
  double* wide;         // [E]
  float* scores;        // [E]
  float* choice;        // [E]
  float* group_scores;  // [groups]
  int32_t* groups;      // [top_groups]
};

float known(float value) {
  return std::isnan(value) ? kOut : value;
}

// Indices of the `count` largest, best first, lower index first among equals; NaN counts as -inf. A sorted
// list of the best so far, which most values do not enter.
void best(const float* values, int32_t n, int32_t count, int32_t* ids) {
  const auto at = [values](int32_t i) { return known(values[i]); };
  int32_t filled = 0;
  for (int32_t i = 0; i < n; ++i) {
    const float value = at(i);
    if (filled == count && !(value > at(ids[count - 1]))) continue;
    int32_t place = filled < count ? filled++ : count - 1;
    for (; place > 0 && value > at(ids[place - 1]); --place) ids[place] = ids[place - 1];
    ids[place] = i;
  }
}

void score(const float* logits, const GateParams& params, const Row& row) {
  const int32_t n = params.experts;
  if (params.scoring == GateParams::Scoring::kSigmoid) {
    for (int32_t e = 0; e < n; ++e) {
      row.scores[e] = static_cast<float>(1.0 / (1.0 + std::exp(-static_cast<double>(logits[e]))));
    }
    return;
  }
  const double top = *std::max_element(logits, logits + n);
  double sum = 0;
  for (int32_t e = 0; e < n; ++e) sum += row.wide[e] = std::exp(logits[e] - top);
  for (int32_t e = 0; e < n; ++e) row.scores[e] = static_cast<float>(row.wide[e] / sum);
}

// Puts the choice of all but the best groups to `out`. A group counts by its best, or its two best, members.
void limit_groups(const GateParams& params, bool two, float out, const Row& row) {
  const int32_t size = params.experts / params.groups;
  for (int32_t g = 0; g < params.groups; ++g) {
    const float* members = row.choice + g * size;
    float first = kOut, second = kOut;
    for (int32_t i = 0; i < size; ++i) {
      const float member = known(members[i]);
      if (member > first) {
        second = first;
        first = member;
      } else {
        second = std::max(second, member);
      }
    }
    row.group_scores[g] = two && size > 1 ? first + second : first;
  }
  best(row.group_scores, params.groups, params.top_groups, row.groups);
  for (int32_t g = 0; g < params.groups; ++g) {
    if (std::find(row.groups, row.groups + params.top_groups, g) != row.groups + params.top_groups) continue;
    std::fill(row.choice + g * size, row.choice + (g + 1) * size, out);
  }
}

void gate_row(const GateArgs& args, int64_t t, const Row& row) {
  const GateParams& params = args.params;
  score(args.logits.row<float>(t), params, row);
  std::copy(row.scores, row.scores + params.experts, row.choice);
  if (params.method == GateParams::Method::kGroupLimitedGreedy) {
    limit_groups(params, false, 0.0F, row);
  } else if (params.method == GateParams::Method::kNoAuxTc) {
    for (int32_t e = 0; e < params.experts; ++e) row.choice[e] += args.bias[e];
    limit_groups(params, true, kOut, row);
  }
  int32_t* ids = args.ids.row<int32_t>(t);
  float* weights = args.weights.row<float>(t);
  best(row.choice, params.experts, params.top_k, ids);
  // Where the bias took part in the choice, it does not in the weights.
  const float* source = params.method == GateParams::Method::kNoAuxTc ? row.scores : row.choice;
  double factor = params.scaling;
  if (params.normalise) {
    double sum = 0;
    for (int32_t k = 0; k < params.top_k; ++k) sum += source[ids[k]];
    factor /= sum + 1e-20;
  }
  for (int32_t k = 0; k < params.top_k; ++k) weights[k] = static_cast<float>(source[ids[k]] * factor);
}

// Exponentials in double: V3's 256 a token are nothing beside a layer, and every processor makes the same
// choice.
void gate_portable(device::Launch& launch, const GateArgs& args) {
  const GateParams& params = args.params;
  FATHOM_CHECK(params.top_k <= params.experts && params.top_groups <= params.groups &&
                   params.experts % params.groups == 0,
               "top {} of {} experts, {} of {} groups", params.top_k, params.experts, params.top_groups,
               params.groups);
  const auto body = [&](int64_t begin, int64_t end, int worker) {
    Row row{};
    for (std::byte* memory = nullptr;;) {
      ScratchCutter cutter(memory);
      row.wide = cutter.take<double>(params.experts);
      row.scores = cutter.take<float>(params.experts);
      row.choice = cutter.take<float>(params.experts);
      row.group_scores = cutter.take<float>(params.groups);
      row.groups = cutter.take<int32_t>(params.top_groups);
      if (memory != nullptr) break;
      memory = launch.scratch(worker, cutter.used());
    }
    for (int64_t t = begin; t < end; ++t) gate_row(args, t, row);
  };
  launch.pool().parallel_for(args.logits.dim(0), std::max<int64_t>(1, kGrain / params.experts),
                             std::ref(body));
}

constexpr Implementation<GateFunction> kGate[] = {
    {"portable", device::Isa::kAvx2, gate_portable},  // plain C++, but the lowest level is the oracle's
    {"reference", device::Isa::kReference, gate_reference},
};

}  // namespace

GateFunction choose_gate(const device::Target& target) {
  return choose<GateFunction>(kGate, target).run;
}

}  // namespace fathom::ops

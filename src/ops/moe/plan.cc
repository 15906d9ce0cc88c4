#include "ops/moe/plan.h"

#include <algorithm>

#include "base/math.h"
#include "ops/linear/rows.h"

namespace fathom::ops {

int64_t MoePlan::bytes(int64_t pairs, int64_t experts) {
  const int64_t ints =
      2 * pairs + experts + experts * static_cast<int64_t>(sizeof(ExpertRows) / sizeof(int32_t));
  return ints * static_cast<int64_t>(sizeof(int32_t));
}

MoePlan plan_moe(const device::Tensor& ids, int64_t num_experts, const PanelKernel& kernel,
                 std::byte* memory) {
  const int64_t tokens = ids.dim(0);
  const int64_t choices = ids.dim(1);
  MoePlan plan;
  plan.pairs = tokens * choices;
  auto* ints = reinterpret_cast<int32_t*>(memory);
  plan.row_of = ints;
  plan.token_of = ints + plan.pairs;
  int32_t* next = ints + 2 * plan.pairs;  // [num_experts]: the rows of each, then where its next row goes
  plan.experts = reinterpret_cast<ExpertRows*>(next + num_experts);

  std::fill(next, next + num_experts, 0);
  for (int64_t t = 0; t < tokens; ++t) {
    const int32_t* row = ids.row<const int32_t>(t);
    for (int64_t j = 0; j < choices; ++j) {
      FATHOM_CHECK(row[j] >= -1 && row[j] < num_experts, "expert {} of {}", row[j], num_experts);
      if (row[j] >= 0) ++next[row[j]];
    }
  }
  int32_t first = 0;
  for (int64_t e = 0; e < num_experts; ++e) {
    const int32_t rows = next[e];
    if (rows > 0) {
      plan.experts[plan.active++] = {static_cast<int32_t>(e), first, rows,
                                     static_cast<int32_t>(plan.prepared_rows)};
      plan.prepared_rows += prepared_rows(kernel, rows);
    }
    next[e] = first;
    first += rows;
  }
  for (int64_t t = 0; t < tokens; ++t) {
    const int32_t* row = ids.row<const int32_t>(t);
    for (int64_t j = 0; j < choices; ++j) {
      const int32_t sorted = row[j] >= 0 ? next[row[j]]++ : -1;
      plan.row_of[t * choices + j] = sorted;
      if (sorted < 0) continue;

      plan.token_of[sorted] = static_cast<int32_t>(t);
    }
  }
  // The longest work first, so that what is left for the end is short. By expert among equals: no run depends
  // on the sort.
  std::sort(plan.experts, plan.experts + plan.active, [](const ExpertRows& a, const ExpertRows& b) {
    return a.rows != b.rows ? a.rows > b.rows : a.expert < b.expert;
  });
  return plan;
}

int64_t most_prepared_rows(const PanelKernel& kernel, int64_t pairs, int64_t experts) {
  return pairs + std::min(pairs, experts) * (kernel.tile_rows - 1);
}

PanelSplit split_panels(int64_t panels, int64_t active, int64_t pieces) {
  const int64_t wanted = std::clamp(panels * active / pieces, int64_t{1}, panels);
  const int64_t chunk = ceil_div(panels, ceil_div(panels, wanted));
  // Whole groups of four panels stream best.
  PanelSplit split;
  split.chunk = std::min(chunk < 4 ? chunk : round_up(chunk, int64_t{4}), panels);
  split.chunks = ceil_div(panels, split.chunk);
  return split;
}

}  // namespace fathom::ops

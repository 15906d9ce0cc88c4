#include "ops/mla_decode/plan.h"

#include <algorithm>

#include "base/math.h"

namespace fathom::ops {
namespace {

// Of partial results between two merges. Enough that a wave's last item does not leave threads idle for long.
constexpr int64_t kWaveBytes = int64_t{64} << 20;

void count(MlaDecodePlan& plan, std::span<const AttentionRow> rows, int64_t heads, int64_t split) {
  plan.units = plan.items = 0;
  for (const AttentionRow& row : rows) {
    const int64_t units = ceil_div(ceil_div(row.count * heads, plan.columns), plan.group);
    plan.units += units;
    plan.items += units * ceil_div<int64_t>(row.start + row.count, split);
  }
}

}  // namespace

MlaDecodePlan plan_mla_decode(std::span<const AttentionRow> rows, int64_t heads, int64_t latent,
                              int64_t lanes, int64_t split, int64_t threads) {
  int64_t widest = 1;
  for (const AttentionRow& row : rows) widest = std::max(widest, row.count * heads);
  MlaDecodePlan plan;
  plan.columns = widest > lanes ? 2 * lanes : lanes;
  plan.group = ceil_div(widest, plan.columns);
  count(plan, rows, heads, split);
  // Fewer tiles an item, then narrower ones, while threads would have nothing to do.
  while (plan.items < 2 * threads && plan.group > 1) {
    plan.group = ceil_div<int64_t>(plan.group, 2);
    count(plan, rows, heads, split);
  }
  if (plan.items < threads && plan.columns > lanes) {
    plan.columns = lanes;
    count(plan, rows, heads, split);
  }
  const int64_t item_bytes = plan.group * plan.columns * latent * 4;
  plan.wave = std::clamp(kWaveBytes / item_bytes, 4 * threads, 32 * threads);
  plan.wave = std::min(plan.wave, plan.items);
  return plan;
}

}  // namespace fathom::ops

#include "engine/layout/traffic.h"

#include <algorithm>

#include "base/math.h"

namespace fathom::engine {
namespace {

// Sums join float32 (docs/ranks.md).
constexpr int64_t kSum = 4;

int64_t moe_layers(const model::ModelConfig& config) {
  int64_t count = 0;
  for (int64_t layer = 0; layer < config.num_layers + config.draft_layers; ++layer)
    count += config.is_moe(layer);
  return count;
}

}  // namespace

int Layout::nodes_of(int ranks) const {
  return std::min(nodes, ceil_div(ranks, ranks_a_node()));
}

double Traffic::link_bytes() const {
  if (meeting == Meeting::kHandOver) return nodes > 1 ? 0.0 : static_cast<double>(row_bytes);
  const double inside = static_cast<double>(ranks) / nodes;
  return static_cast<double>(row_bytes + back_bytes) * (inside - 1) / inside;
}

double Traffic::network_bytes() const {
  if (meeting == Meeting::kHandOver) return nodes > 1 ? static_cast<double>(row_bytes) : 0.0;
  const double inside = static_cast<double>(ranks) / nodes;
  return static_cast<double>(row_bytes + back_bytes) * (nodes - 1) / nodes / inside;
}

std::vector<Traffic> traffic_of(const model::ModelConfig& config, const Layout& layout, bool wide) {
  const model::Split& split = layout.split;
  const int lanes = split.attention_ranks();
  const int64_t layers = config.num_layers + config.draft_layers;
  const int64_t moe = moe_layers(config);
  const int64_t sum = config.hidden_size * kSum;
  const int64_t row = config.hidden_size * (wide ? 4 : 2);
  std::vector<Traffic> all;
  const auto add = [&](Traffic traffic) {
    if (traffic.times == 0 || traffic.ranks < 2) return;
    traffic.nodes = layout.nodes_of(traffic.ranks);
    // GPUs gather the norm of the sum, CPUs the sum itself.
    if (traffic.meeting == Meeting::kAllReduce) traffic.back_bytes = row;
    all.push_back(traffic);
  };
  const auto times = [](int64_t count) { return static_cast<int>(count); };
  add({Meeting::kAllReduce, "after the embedding", 1, sum, 0, false, false, lanes});
  add({Meeting::kAllReduce, "after attention", times(layers), sum, 0, false, false, lanes});
  add({Meeting::kAllReduce, "after dense MLPs", times(layers - moe), sum, 0, false, false, lanes});
  if (split.dp == 1) {
    add({Meeting::kAllReduce, "after experts", times(moe), sum, 0, false, false, split.tp});
  } else {
    // Ranks of the same place in their groups bring tokens together and part their sums; those of a group
    // then add.
    const int nodes = std::min(layout.nodes_of(split.tp), split.dp);
    if (moe > 0) {
      all.push_back(
          {Meeting::kAllGather, "before experts", times(moe), row, 0, true, false, split.dp, nodes});
      all.push_back(
          {Meeting::kReduceScatter, "after experts", times(moe), sum, 0, true, false, split.dp, nodes});
    }
    add({Meeting::kAllReduce, "after experts", times(moe), sum, 0, false, false, lanes});
  }
  add({Meeting::kAllGather, "of logits", 1, config.vocab_size * kSum, 0, false, true, lanes});
  // A stage hands the residual stream on; where stages end with their node, over the network.
  int crossing = 0;
  for (int stage = 1; stage < split.pp; ++stage)
    crossing += stage * split.tp % layout.ranks_a_node() == 0 ? 1 : 0;
  const auto hand_over = [&](int count, int nodes) {
    if (count == 0) return;
    all.push_back({Meeting::kHandOver, "between stages", count, sum, 0, false, false, 2, nodes});
  };
  hand_over(split.pp - 1 - crossing, 1);
  hand_over(crossing, 2);
  if (split.pp > 1) {
    all.push_back({Meeting::kHandOver, "of logits", 1, config.vocab_size * kSum, 0, false, true, 2,
                   crossing > 0 ? 2 : 1});
  }
  return all;
}

double meeting_us(const Traffic& traffic, double rows, const GpuKind& gpu) {
  const Links& l = links();
  const double wire = traffic.link_bytes() * rows / (gpu.link_gbs.value * 1e3) +
                      traffic.network_bytes() * rows / (l.network_gbs.value * 1e3);
  const double further = l.peer_us.value * (static_cast<double>(traffic.ranks) / traffic.nodes - 2);
  const double far = traffic.nodes > 1 ? l.network_us.value : 0.0;
  const double meeting = l.meeting_us.value + std::max(0.0, further) + far + wire;
  if (traffic.meeting != Meeting::kAllReduce || traffic.nodes > 1) return meeting;
  const double pace = std::min(l.post_gbs.value, gpu.link_gbs.value) * 1e3;
  const double posted = static_cast<double>(traffic.row_bytes) * (traffic.ranks - 1) * rows;
  return std::min(l.post_us.value + std::max(0.0, further) + posted / pace, meeting);
}

}  // namespace fathom::engine

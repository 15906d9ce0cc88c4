#include "model/cuda/expert_mover.h"

#include <algorithm>

namespace fathom::model::cuda {

Result<void> ExpertMover::balance(MoeWeights& moe) {
  if (moe.places.load == nullptr) return {};
  const auto experts = static_cast<size_t>(moe.load.size());
  std::vector<unsigned long long> counted(experts);
  stream_.copy(counted.data(), moe.places.load, experts * sizeof(counted[0]));
  stream_.fill(moe.places.load, 0, experts * sizeof(counted[0]));
  FATHOM_TRY(stream_.synchronize());
  for (size_t e = 0; e < experts; ++e) moe.load[e] += static_cast<int64_t>(counted[e]);
  const auto after = rebalancer_.next(moe.placement, moe.load);
  if (!after) return {};

  std::vector<std::vector<ExpertChange>> changes;  // [set]
  for (size_t set = 0; set < after->sets.size(); ++set)
    changes.push_back(changes_of(moe.placement, *after, set));
  for (const ops::cuda::Weight* weight : {&moe.experts.gate_up, &moe.experts.down}) {
    // The arena's, which the weights lie in.
    auto* data = static_cast<std::byte*>(const_cast<void*>(weight->data));
    FATHOM_TRY(move({data, weight->group_bytes()}, changes));
    if (weight->scales == nullptr) continue;
    auto* scales = reinterpret_cast<std::byte*>(const_cast<float*>(weight->scales));
    FATHOM_TRY(move({scales, weight->scales_per_group() * static_cast<int64_t>(sizeof(float))}, changes));
  }
  moe.placement = *after;
  const ExpertSlots slots = slots_of(*after, shard_.place.set, static_cast<int64_t>(experts));
  stream_.copy(moe.places.first, slots.first.data(), slots.first.size() * sizeof(int32_t));
  stream_.copy(moe.places.slots, slots.slots.data(), slots.slots.size() * sizeof(int32_t));
  return stream_.synchronize();
}

// A stretch of every part at a time: it is taken, and brought to those that take it, before it is
// overwritten.
Result<void> ExpertMover::move(const Parts& mine, const std::vector<std::vector<ExpertChange>>& changes) {
  const auto own = static_cast<size_t>(shard_.place.set);
  const int ranks = shard_.split.expert_ranks();
  // Between the ranks of the sets that have the same part of an expert.
  const int part = stage_.rank() % ranks;
  const auto rank_of = [&](size_t set) { return static_cast<int>(set) * ranks + part; };
  size_t most = 1;  // that any set gets
  for (const auto& theirs : changes) most = std::max(most, theirs.size());
  const int64_t stretch = std::min(mine.bytes, static_cast<int64_t>(staging_.size() / most) / 256 * 256);
  FATHOM_CHECK(stretch > 0, "{} experts come to a rank", most);
  for (int64_t begin = 0; begin < mine.bytes; begin += stretch) {
    const int64_t size = std::min(stretch, mine.bytes - begin);
    const auto at = [&](size_t slot) { return mine.data + static_cast<int64_t>(slot) * mine.bytes + begin; };
    const auto held = [&](size_t i) {
      return static_cast<std::byte*>(staging_.data()) + static_cast<int64_t>(i) * stretch;
    };
    std::vector<dist::cuda::Piece> out, in;
    for (size_t set = 0; set < changes.size(); ++set) {
      for (size_t i = 0; i < changes[set].size(); ++i) {
        const ExpertChange& change = changes[set][i];
        if (set == own && change.set == own) {
          stream_.copy(held(i), at(change.set_slot), static_cast<size_t>(size));
        } else if (set == own) {
          in.push_back({rank_of(change.set), held(i), size});
        } else if (change.set == own) {
          out.push_back({rank_of(set), at(change.set_slot), size});
        }
      }
    }
    FATHOM_TRY(stage_.exchange(stream_, out, in));
    for (size_t i = 0; i < changes[own].size(); ++i)
      stream_.copy(at(changes[own][i].slot), held(i), static_cast<size_t>(size));
  }
  return {};
}

}  // namespace fathom::model::cuda

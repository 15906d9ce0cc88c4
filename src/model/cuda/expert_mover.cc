#include "model/cuda/expert_mover.h"

#include <algorithm>

namespace fathom::model::cuda {
// In the order of this rank's slots. The first set that has an expert gives it, the own one where it does.
std::vector<ExpertMover::Change> ExpertMover::changes(const ExpertPlacement& before,
                                                      const ExpertPlacement& after) const {
  const auto own = static_cast<size_t>(shard_.place.set);
  const int ranks = shard_.split.expert_ranks();
  const int part = shard_.rank % shard_.split.tp % ranks;
  std::vector<Change> found;
  for (size_t slot = 0; slot < after.sets[own].size(); ++slot) {
    const int32_t expert = after.sets[own][slot];
    if (expert == before.sets[own][slot]) continue;
    for (size_t i = 0; i <= before.sets.size(); ++i) {
      const size_t set = i == 0 ? own : i - 1;
      const auto& slots = before.sets[set];
      const auto at = std::find(slots.begin(), slots.end(), expert);
      if (at == slots.end()) continue;
      found.push_back({slot, static_cast<int>(set) * ranks + part, static_cast<size_t>(at - slots.begin())});
      break;
    }
  }
  return found;
}

Result<void> ExpertMover::balance(MoeWeights& moe) {
  if (moe.places.load == nullptr) return {};
  const auto experts = static_cast<size_t>(moe.load.size());
  std::vector<unsigned long long> counted(experts);
  stream_.copy(counted.data(), moe.places.load, experts * sizeof(counted[0]));
  stream_.fill(moe.places.load, 0, experts * sizeof(counted[0]));
  FATHOM_TRY(stream_.synchronize());
  for (size_t e = 0; e < experts; ++e) moe.load[e] += static_cast<int64_t>(counted[e]);
  const ExpertPlacement after = model::balance(moe.placement, moe.load);
  const double was = imbalance(moe.placement, moe.load);
  const double would_be = imbalance(after, moe.load);
  const bool worthwhile = was - would_be >= kWorthwhileBalance;
  sum_.before += was;
  sum_.after += worthwhile ? would_be : was;
  ++layers_;
  for (int64_t& tokens : moe.load) tokens /= 2;
  if (!worthwhile) return {};

  const auto todo = changes(moe.placement, after);
  const int own = stage_.rank();
  sum_.moved +=
      std::count_if(todo.begin(), todo.end(), [own](const Change& change) { return change.source != own; });
  for (const ops::cuda::Weight* weight : {&moe.experts.gate_up, &moe.experts.down}) {
    // The arena's, which the weights lie in.
    auto* data = static_cast<std::byte*>(const_cast<void*>(weight->data));
    FATHOM_TRY(move({data, weight->group_bytes()}, todo));
    if (weight->scales == nullptr) continue;
    auto* scales = reinterpret_cast<std::byte*>(const_cast<float*>(weight->scales));
    FATHOM_TRY(move({scales, weight->scales_per_group() * static_cast<int64_t>(sizeof(float))}, todo));
  }
  moe.placement = after;
  const ExpertSlots slots = slots_of(after, shard_.place.set, static_cast<int64_t>(experts));
  stream_.copy(moe.places.first, slots.first.data(), slots.first.size() * sizeof(int32_t));
  stream_.copy(moe.places.slots, slots.slots.data(), slots.slots.size() * sizeof(int32_t));
  return stream_.synchronize();
}

// A stretch of every part at a time: all ranks take it before any overwrites its own.
Result<void> ExpertMover::move(const Parts& mine, const std::vector<Change>& changes) {
  struct Offer {
    std::byte* data;
    int64_t changes;
  };
  const Offer offer{mine.data, static_cast<int64_t>(changes.size())};
  std::vector<Offer> all(static_cast<size_t>(stage_.size()));
  FATHOM_TRY(stage_.host().all_gather(&offer, std::vector<int64_t>(all.size(), sizeof(Offer)), all.data()));
  int64_t most = 1;
  for (const Offer& other : all) most = std::max(most, other.changes);
  const int64_t stretch = std::min(mine.bytes, static_cast<int64_t>(staging_.size()) / most / 256 * 256);
  FATHOM_CHECK(stretch > 0, "{} experts come to a rank", most);
  auto* staging = static_cast<std::byte*>(staging_.data());
  for (int64_t begin = 0; begin < mine.bytes; begin += stretch) {
    const int64_t size = std::min(stretch, mine.bytes - begin);
    const auto run = [&](bool out) -> Result<void> {
      for (size_t i = 0; i < changes.size(); ++i) {
        const Change& change = changes[i];
        std::byte* held = staging + static_cast<int64_t>(i) * stretch;
        std::byte* theirs = all[static_cast<size_t>(change.source)].data +
                            static_cast<int64_t>(change.source_slot) * mine.bytes + begin;
        std::byte* to = mine.data + static_cast<int64_t>(change.slot) * mine.bytes + begin;
        stream_.copy(out ? held : to, out ? theirs : held, static_cast<size_t>(size));
      }
      FATHOM_TRY(stream_.synchronize());
      return stage_.host().barrier();
    };
    FATHOM_TRY(run(true));
    FATHOM_TRY(run(false));
  }
  return {};
}

ExpertBalance ExpertMover::result() const {
  if (layers_ == 0) return {};
  return {sum_.before / layers_, sum_.after / layers_, sum_.moved};
}

}  // namespace fathom::model::cuda

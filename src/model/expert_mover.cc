#include "model/expert_mover.h"

#include <algorithm>
#include <cstring>

#include "base/math.h"

namespace fathom::model {
namespace {

int64_t scale_bytes(const ops::PackedLinear& weight) {
  if (weight.scales == nullptr) return 0;
  return ceil_div<int64_t>(weight.k, 128) * weight.n_padded * static_cast<int64_t>(sizeof(float));
}

// The memory of one expert's weights, which the arena holds.
template <class Visit>
void visit(MoeWeights& moe, size_t slot, const Visit& each) {
  for (const ops::PackedLinear* weight : {&moe.gate_up[slot], &moe.down[slot]}) {
    each(const_cast<void*>(weight->data), static_cast<size_t>(weight->bytes()));
    if (weight->scales != nullptr) {
      each(const_cast<float*>(weight->scales), static_cast<size_t>(scale_bytes(*weight)));
    }
  }
}

// The first set that had the expert; the own one where it did, for then nothing is sent.
size_t source_of(const ExpertPlacement& before, int32_t expert, size_t own) {
  const auto has = [&](size_t set) {
    return std::find(before.sets[set].begin(), before.sets[set].end(), expert) != before.sets[set].end();
  };
  if (has(own)) return own;
  size_t set = 0;
  while (!has(set)) ++set;
  return set;
}

}  // namespace

void ExpertMover::balance(MoeWeights& moe) {
  if (moe.load.empty()) return;
  const ExpertPlacement after = model::balance(moe.placement, moe.load);
  const double was = imbalance(moe.placement, moe.load);
  const double would_be = imbalance(after, moe.load);
  const bool worthwhile = was - would_be >= kWorthwhileBalance;
  sum_.before += was;
  sum_.after += worthwhile ? would_be : was;
  ++layers_;
  for (int64_t& tokens : moe.load) tokens /= 2;
  if (worthwhile) move(moe, after);
}

void ExpertMover::move(MoeWeights& moe, const ExpertPlacement& after) {
  const size_t sets = after.sets.size();
  const auto own = static_cast<size_t>(shard_.place.set);
  const ExpertPlacement& before = moe.placement;
  out_.assign(sets, {});
  in_.assign(sets, {});
  size_t expert_bytes = 0;
  visit(moe, 0, [&](void*, size_t bytes) { expert_bytes += bytes; });
  // In the order of the receiver's slots. Everything is copied before anything is overwritten.
  for (size_t set = 0; set < sets; ++set) {
    for (size_t slot = 0; slot < after.sets[set].size(); ++slot) {
      const int32_t expert = after.sets[set][slot];
      if (expert == before.sets[set][slot]) continue;
      const size_t source = source_of(before, expert, set);
      if (source == own) {
        const auto& mine = before.sets[own];
        const auto from = static_cast<size_t>(std::find(mine.begin(), mine.end(), expert) - mine.begin());
        visit(moe, from, [&](void* data, size_t bytes) {
          const auto* begin = static_cast<const std::byte*>(data);
          out_[set].insert(out_[set].end(), begin, begin + bytes);
        });
      }
      if (set == own) in_[source].resize(in_[source].size() + expert_bytes);
      if (set == own && source != own) ++sum_.moved;
    }
  }
  std::vector<dist::Outgoing> send;
  std::vector<dist::Incoming> receive;
  for (size_t set = 0; set < sets; ++set) {
    send.push_back({out_[set].data(), static_cast<int64_t>(out_[set].size())});
    receive.push_back({in_[set].data(), static_cast<int64_t>(in_[set].size())});
  }
  if (!groups_.exchange(send, receive)) return;
  std::vector<size_t> taken(sets, 0);
  for (size_t slot = 0; slot < after.sets[own].size(); ++slot) {
    const int32_t expert = after.sets[own][slot];
    if (expert == before.sets[own][slot]) continue;
    const size_t source = source_of(before, expert, own);
    visit(moe, slot, [&](void* data, size_t bytes) {
      std::memcpy(data, in_[source].data() + taken[source], bytes);
      taken[source] += bytes;
    });
  }
  moe.placement = after;
  moe.slots = slots_of(after, shard_.place.set, static_cast<int64_t>(moe.load.size()));
}

ExpertBalance ExpertMover::result() const {
  if (layers_ == 0) return {};
  return {sum_.before / layers_, sum_.after / layers_, sum_.moved};
}

}  // namespace fathom::model

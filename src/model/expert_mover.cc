#include "model/expert_mover.h"

#include <cstring>

#include "base/math.h"

namespace fathom::model {
namespace {

// The memory of one expert's weights, which the arena holds.
template <class Visit>
void visit(MoeWeights& moe, size_t slot, const Visit& each) {
  for (const ops::PackedLinear* weight : {&moe.gate_up[slot], &moe.down[slot]}) {
    each(const_cast<void*>(weight->data), static_cast<size_t>(weight->bytes()));
    if (weight->scales != nullptr) {
      each(const_cast<float*>(weight->scales), static_cast<size_t>(weight->scale_bytes()));
    }
  }
}

}  // namespace

void ExpertMover::balance(MoeWeights& moe) {
  if (moe.load.empty()) return;
  if (const auto after = rebalancer_.next(moe.placement, moe.load)) move(moe, *after);
}

void ExpertMover::move(MoeWeights& moe, const ExpertPlacement& after) {
  const size_t sets = after.sets.size();
  const auto own = static_cast<size_t>(shard_.place.set);
  out_.assign(sets, {});
  in_.assign(sets, {});
  size_t expert_bytes = 0;
  visit(moe, 0, [&](void*, size_t bytes) { expert_bytes += bytes; });
  // In the order of the receiver's slots. Everything is copied before anything is overwritten.
  for (size_t set = 0; set < sets; ++set) {
    for (const ExpertChange& change : changes_of(moe.placement, after, set)) {
      if (change.set == own) {
        visit(moe, change.set_slot, [&](void* data, size_t bytes) {
          const auto* begin = static_cast<const std::byte*>(data);
          out_[set].insert(out_[set].end(), begin, begin + bytes);
        });
      }
      if (set == own) in_[change.set].resize(in_[change.set].size() + expert_bytes);
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
  for (const ExpertChange& change : changes_of(moe.placement, after, own)) {
    visit(moe, change.slot, [&](void* data, size_t bytes) {
      std::memcpy(data, in_[change.set].data() + taken[change.set], bytes);
      taken[change.set] += bytes;
    });
  }
  moe.placement = after;
  moe.slots = slots_of(after, shard_.place.set, static_cast<int64_t>(moe.load.size()));
}

}  // namespace fathom::model

// Remembers the last pages that were evicted, by the hash of all that led to them: what tells "evicted" from
// "never seen". Bounded; the oldest are forgotten.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

namespace fathom::kv {

class EvictedPages {
 public:
  static constexpr size_t kCapacity = size_t{1} << 16;

  void add(uint64_t chain) {
    if (ring_.size() < kCapacity) {
      ring_.push_back(chain);
    } else {
      const auto oldest = counts_.find(ring_[next_]);
      if (--oldest->second == 0) counts_.erase(oldest);
      ring_[next_] = chain;
    }
    next_ = (next_ + 1) % kCapacity;
    ++counts_[chain];
  }
  bool contains(uint64_t chain) const { return counts_.contains(chain); }
  size_t size() const { return ring_.size(); }

 private:
  std::vector<uint64_t> ring_;
  size_t next_ = 0;                               // of the ring, the oldest once it is full
  std::unordered_map<uint64_t, int32_t> counts_;  // in the ring
};

}  // namespace fathom::kv

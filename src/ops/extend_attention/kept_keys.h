// Keys and values that extend_attention has projected, kept from one pass to the next: each chunk of a long
// prompt attends to all before it, and would project it anew. What is kept are the bits that a projection
// would give again, so nobody's results depend on it. By page of the KV cache and layer; only rows whose
// prompts go on put something in, and what was not used for kIdle passes gives way. Not thread safe, but for
// reading.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "device/arena.h"
#include "ops/kv_cache.h"

namespace fathom::ops {

class KeptKeys {
 public:
  static constexpr uint64_t kIdle = 16;

  // Room for `pages` pages of `page_size` entries in each of `layers` layers, an entry being `width` floats:
  // [Nh, Dn + Dv]. Memory that is not used is not taken. kUnavailable when it is not there.
  static Result<KeptKeys> create(int64_t layers, int64_t pages, int64_t page_size, int64_t width);

  void begin_pass() { ++pass_; }
  // The cache's entry at `place` (page * page_size + offset) is written anew, in all layers: what is kept of
  // it and of what follows it in its page is worth nothing.
  void written(int64_t place);

  // How many entries of a page, from its first on, are kept of a layer. The page counts as used.
  int64_t count(int64_t layer, int64_t page);
  // [width] of one of them. Valid until keep().
  const float* entry(int64_t layer, int64_t page, int64_t offset) const {
    return slot_memory(slot_of_[static_cast<size_t>(page)], layer) + offset * width_;
  }
  // Where entries [offset, offset + count) of a page are to be written, [count, width]; they are kept from
  // now on. Null where there is no room, or where those before them are not kept.
  float* keep(int64_t layer, int64_t page, int64_t offset, int64_t count);

 private:
  struct Slot {
    int64_t page = -1;  // none
    uint64_t used = 0;  // pass
  };
  float* slot_memory(int32_t slot, int64_t layer) const {
    return reinterpret_cast<float*>(memory_.data()) + (slot * layers_ + layer) * page_size_ * width_;
  }
  int32_t& filled(int32_t slot, int64_t layer) {
    return filled_[static_cast<size_t>(slot * layers_ + layer)];
  }
  int32_t slot_of(int64_t page) const {
    return page < static_cast<int64_t>(slot_of_.size()) ? slot_of_[static_cast<size_t>(page)] : -1;
  }
  // The first one that nobody uses; -1: none.
  int32_t take_slot(int64_t page);

  int64_t layers_ = 0, page_size_ = 0, width_ = 0;
  uint64_t pass_ = kIdle;
  device::Buffer memory_;  // [slots, layers, page_size, width]
  std::vector<Slot> slots_;
  std::vector<int32_t> filled_;   // [slots, layers] entries kept
  std::vector<int32_t> slot_of_;  // [pages of the cache seen so far]; -1: none
};

// A layer's part.
struct KeptLayer {
  KeptKeys* keys = nullptr;  // null: nothing is kept
  int64_t layer = 0;
};

}  // namespace fathom::ops

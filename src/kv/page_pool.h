// Which pages of the KV pool are free. Integers only: the bytes belong to the executor.
//
// Not thread safe: one scheduler owns it. Invariant: every page is either on the free list or given out, and
// giving back a page twice is a bug (CHECK).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace fathom::kv {

class PagePool {
 public:
  // Pages have the ids 0 .. num_pages - 1.
  explicit PagePool(int32_t num_pages);

  int32_t num_pages() const { return static_cast<int32_t>(used_.size()); }
  int32_t free_pages() const { return static_cast<int32_t>(free_.size()); }
  bool is_free(int32_t page) const { return !used_[static_cast<size_t>(page)]; }

  // Appends `count` pages to `out`; false, with nothing changed, when fewer are free.
  bool allocate(int32_t count, std::vector<int32_t>* out);
  void release(int32_t page);
  void release(std::span<const int32_t> pages);

  Result<void> check_integrity() const;

 private:
  std::vector<int32_t> free_;  // a stack: the page given back last is the first to be reused
  std::vector<uint8_t> used_;  // by page
};

}  // namespace fathom::kv

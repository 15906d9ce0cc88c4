// One layer's pages of the KV cache, and how a batch's tokens find their places in them. Shared by the ops
// that write and read the cache.
#pragma once

#include <cstdint>

#include "device/dtype.h"
#include "device/tensor.h"

namespace fathom::ops {

// Token place p of a sequence is entry p % page_size of page block_table[p / page_size]. An entry is `width`
// values of `dtype` (F32 or BF16):
//   latent (MLA):  Dc normalised latent values, then Dr rotated rope values
//   plain (MHA):   Nh * (Dn + Dr) keys, then Nh * Dv values
struct KvCache {
  void* data = nullptr;  // [pages, page_size, width]
  device::DType dtype = device::DType::kBF16;
  int64_t num_pages = 0;
  int64_t page_size = 0;
  int64_t width = 0;

  void* entry(int64_t page, int64_t offset) const {
    return static_cast<uint8_t*>(data) + ((page * page_size + offset) * width) * device::size_of(dtype);
  }
};

// The tokens of one sequence in a batch: rows [first, first + count) of the batch's tensors, at positions
// start .. start + count - 1; token i sees places 0 .. start + i.
struct AttentionRow {
  int32_t first = 0;
  int32_t count = 0;
  int32_t start = 0;
  const int32_t* block_table = nullptr;  // covers start + count places, or those before tail_start
  // A branch of guessed tokens: the entries of places from tail_start on are not in the block table's pages.
  // Entry p is tail[p - tail_start], as page * page_size + offset. Null: none. Decode rows only.
  const int64_t* tail = nullptr;
  int32_t tail_start = 0;
  bool goes_on = false;  // of a prompt whose next tokens follow in another pass
};

// Of place p of the row's sequence.
inline void* entry_of(const KvCache& cache, const AttentionRow& row, int64_t p) {
  if (row.tail != nullptr && p >= row.tail_start) {
    const int64_t place = row.tail[p - row.tail_start];
    return cache.entry(place / cache.page_size, place % cache.page_size);
  }
  return cache.entry(row.block_table[p / cache.page_size], p % cache.page_size);
}

}  // namespace fathom::ops

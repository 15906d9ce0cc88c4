// Attention of one head's queries over ranges of keys, block by block: what extend_attention and
// mha_attention share. Both take the same blocks in the same order.
#pragma once

#include <algorithm>
#include <cstring>
#include <numbers>

#include "base/math.h"
#include "device/tensor.h"
#include "ops/attention/flash.h"
#include "ops/attention/scratch.h"
#include "ops/kv_cache.h"

namespace fathom::ops {

// A run of one row's tokens at one head: queries q[0 .. count), at places first_place and up.
struct HeadQueries {
  const float* q = nullptr;  // [count][key_width], `q_stride` apart
  int64_t q_stride = 0;
  float* out = nullptr;  // [count][value_width], `out_stride` apart
  int64_t out_stride = 0;
  int64_t count = 0;
  int64_t first_place = 0;
  // [count] running tops and totals, kept where the context is taken in several pieces; the running sums wait
  // in `out`.
  float* tops = nullptr;
  float* totals = nullptr;
};

// How wide a tile and how many queries an item takes so that every thread has items; no choice here changes a
// bit of the result. `work` is the sum over the rows of heads * count.
struct HeadPlan {
  int64_t columns = 0;
  int64_t range = 0;  // queries of an item, a multiple of columns
};
HeadPlan plan_heads(int64_t longest_row, int64_t work, int64_t lanes, int64_t threads);

// One worker's memory for one item.
class HeadFlash {
 public:
  HeadFlash(const FlashKernels& kernels, const HeadPlan& plan, int64_t key_width, int64_t value_width,
            float scale)
      : kernels_(kernels),
        plan_(plan),
        key_width_(key_width),
        value_width_(value_width),
        factor_(static_cast<float>(scale * std::numbers::log2e)) {}

  size_t bytes() const { return HeadFlash(*this).cut(nullptr); }
  void use(std::byte* memory) { cut(memory); }

  // Packs the queries and takes up the state: from nothing, or from `out`, tops and totals.
  void begin(const HeadQueries& queries, bool resume);
  // Keys [place, end) by blocks; place is a multiple of kKeyBlock. read(p, count, keys, values) fills
  // keys [count][key_width] and values [count][value_width] for places p .. p + count.
  template <class Read>
  void add(int64_t place, int64_t end, const Read& read) {
    end = std::min(end, queries_.first_place + queries_.count);
    for (; place < end; place += kKeyBlock) {
      const int64_t count = std::min(kKeyBlock, end - place);
      read(place, count, keys_, values_);
      kernels_.prepare(keys_, key_width_, values_, value_width_, count);
      add_block(place, count);
    }
  }
  // Writes the result, or, when more keys follow, the state.
  void finish(bool more);

 private:
  size_t cut(std::byte* memory);
  void add_block(int64_t place, int64_t count);
  int64_t tiles() const { return ceil_div(queries_.count, plan_.columns); }
  int64_t columns_of(int64_t tile) const {
    return std::min(plan_.columns, queries_.count - tile * plan_.columns);
  }
  FlashState state(int64_t tile) const {
    float* top = states_ + tile * plan_.columns * (2 + value_width_);
    return {top, top + plan_.columns, top + 2 * plan_.columns};
  }

  const FlashKernels& kernels_;
  HeadPlan plan_;
  int64_t key_width_, value_width_;
  float factor_;
  HeadQueries queries_;
  float* packed_ = nullptr;   // [range / columns][key_width][columns]
  float* limits_ = nullptr;   // [range]
  float* states_ = nullptr;   // [range / columns] of top, total, sums
  float* keys_ = nullptr;     // [kKeyBlock][key_width]
  float* values_ = nullptr;   // [kKeyBlock][value_width]
  float* weights_ = nullptr;  // [kKeyBlock][columns]
};

}  // namespace fathom::ops

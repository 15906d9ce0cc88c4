// Attention of a few heads that share their keys over a paged cache, by one CTA in plain float32 arithmetic:
// what the portable kernels of mla_decode and mha_attention are made of. Any dims that are multiples of 8.
#pragma once

#include "ops/attention/tails.cuh"
#include "ops/attention/values.cuh"
#include "ops/mla_decode/split.cuh"

namespace fathom::ops::cuda {

inline constexpr int kPagedFlashThreads = 256;

template <class T>
struct PagedEntries {
  const T* data;
  const int32_t* table;  // of the sequence
  int64_t page_size, width;
  int64_t key_offset, value_offset;  // within an entry
  TokenTail tail;

  __device__ const T* entry(int place) const {
    if (tail.has(place)) return data + tail.entry(place) * width;
    return data + (static_cast<int64_t>(table[place / page_size]) * page_size + place % page_size) * width;
  }
};

// Shared memory of a CTA: for each head queries, scores of a tile, and the values and statistics of the tree
// of folds (level 0: the unit that is being computed).
template <int kHeads>
struct PagedFlashMemory {
  float* q;          // [kHeads, key], scaled for base 2
  float* scores;     // [kHeads, kSplitTile]
  float* values;     // [kSplitTop + 1, kHeads, value]
  float* tops;       // [kSplitTop + 1, kHeads]
  float* sums;       // [kSplitTop + 1, kHeads]
  float* rescale;    // [kHeads] of the unit, for a new tile
  int64_t* entries;  // [kSplitTile] first elements of the tile's entries

  __host__ __device__ static int64_t bytes(int64_t key, int64_t value) {
    return 8 * kSplitTile + 4 * kHeads * (key + kSplitTile + (kSplitTop + 1) * (value + 2) + 1);
  }
  __device__ PagedFlashMemory(unsigned char* memory, int key, int value) {
    entries = reinterpret_cast<int64_t*>(memory);
    q = reinterpret_cast<float*>(entries + kSplitTile);
    scores = q + kHeads * key;
    values = scores + kHeads * kSplitTile;
    tops = values + (kSplitTop + 1) * kHeads * value;
    sums = tops + (kSplitTop + 1) * kHeads;
    rescale = sums + (kSplitTop + 1) * kHeads;
  }
};

// Adds places [begin, begin + count) to the unit; count <= kSplitTile. `first`: nothing is in it yet.
template <int kHeads, class T>
__device__ void paged_flash_tile(const PagedFlashMemory<kHeads>& memory, const PagedEntries<T>& cache,
                                 int key, int value, int begin, int count, bool first) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  if (thread < count) memory.entries[thread] = cache.entry(begin + thread) - cache.data;
  __syncthreads();
  for (int i = warp; i < count; i += kPagedFlashThreads / 32) {
    const T* keys = cache.data + memory.entries[i] + cache.key_offset;
    float scores[kHeads] = {};
    for (int d = lane * 8; d < key; d += 256) {
      float k[8];
      load8(keys + d, k);
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        float q[8];
        load8(memory.q + h * key + d, q);
#pragma unroll
        for (int j = 0; j < 8; ++j) scores[h] = fmaf(q[j], k[j], scores[h]);
      }
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
#pragma unroll
      for (int step = 16; step > 0; step /= 2) {
        scores[h] += __shfl_xor_sync(0xffffffffU, scores[h], step);
      }
      if (lane == 0) memory.scores[h * kSplitTile + i] = scores[h];
    }
  }
  __syncthreads();
  if (warp < kHeads) {
    float* scores = memory.scores + warp * kSplitTile;
    const float a = lane < count ? scores[lane] : -INFINITY;
    const float b = lane + 32 < count ? scores[lane + 32] : -INFINITY;
    float top = fmaxf(a, b);
#pragma unroll
    for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffU, top, step));
    const float old_top = first ? top : memory.tops[warp];
    top = fmaxf(top, old_top);
    const float weight_a = exp2f(a - top), weight_b = exp2f(b - top);
    float sum = weight_a + weight_b;
#pragma unroll
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, step);
    scores[lane] = weight_a;
    scores[lane + 32] = weight_b;
    __syncwarp();  // all lanes have read the old maximum
    if (lane == 0) {
      const float rescale = exp2f(old_top - top);
      memory.rescale[warp] = rescale;
      memory.sums[warp] = first ? sum : fmaf(memory.sums[warp], rescale, sum);
      memory.tops[warp] = top;
    }
  }
  __syncthreads();
  for (int d = thread * 2; d < value; d += 2 * kPagedFlashThreads) {
    float2 sums[kHeads];
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const float rescale = memory.rescale[h];
      const float2 old = first ? make_float2(0, 0) : load2(memory.values + h * value + d);
      sums[h] = make_float2(old.x * rescale, old.y * rescale);
    }
    for (int i = 0; i < count; ++i) {
      const float2 v = load2(cache.data + memory.entries[i] + cache.value_offset + d);
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        const float weight = memory.scores[h * kSplitTile + i];
        sums[h].x = fmaf(weight, v.x, sums[h].x);
        sums[h].y = fmaf(weight, v.y, sums[h].y);
      }
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) *reinterpret_cast<float2*>(memory.values + h * value + d) = sums[h];
  }
  __syncthreads();
}

// Places [begin, end): units of `unit` places from nothing, folded (split.cuh). Returns the level in `memory`
// where the result lies; memory.q is filled in and visible.
template <int kHeads, class T>
__device__ int paged_flash(const PagedFlashMemory<kHeads>& memory, const PagedEntries<T>& cache, int key,
                           int value, int begin, int end, int unit) {
  const int units = (end - begin + unit - 1) / unit;
  int result = 0;
  for (int u = 0; u < units; ++u) {
    const int unit_begin = begin + u * unit, unit_end = min(unit_begin + unit, end);
    for (int place = unit_begin; place < unit_end; place += kSplitTile) {
      paged_flash_tile<kHeads>(memory, cache, key, value, place, min(kSplitTile, unit_end - place),
                               place == unit_begin);
    }
    result = 0;
    bool complete = units > 1;
    for (int up = 1; up <= kSplitTop && complete; ++up) {
      const int child = (u >> (2 * (up - 1))) & 3;
      for (int i = static_cast<int>(threadIdx.x); i < kHeads * value; i += kPagedFlashThreads) {
        const int h = i / value;
        const float from = memory.values[result * kHeads * value + i];
        float& to = memory.values[up * kHeads * value + i];
        to = child == 0 ? from
                        : Fold(memory.tops[up * kHeads + h], memory.tops[result * kHeads + h])(to, from);
      }
      __syncthreads();
      if (threadIdx.x < kHeads) {
        const int h = static_cast<int>(threadIdx.x);
        float& top = memory.tops[up * kHeads + h];
        float& sum = memory.sums[up * kHeads + h];
        const float from_top = memory.tops[result * kHeads + h], from_sum = memory.sums[result * kHeads + h];
        const Fold fold(top, from_top);
        sum = child == 0 ? from_sum : fold(sum, from_sum);
        top = child == 0 ? from_top : fold.top;
      }
      __syncthreads();
      complete = child == 3 || u == units - 1;
      result = up;
    }
  }
  return result;
}

}  // namespace fathom::ops::cuda

// The parts of the last kernel: sorting candidates, finding the border that top_k and top_p draw, and
// finding the token on which a draw falls. One CTA works on a row; all its threads call these functions.
#pragma once

#include "sample/cuda/row.cuh"

namespace fathom::sample::cuda {

constexpr int kFinishThreads = 1024;
constexpr int kFinishWarps = kFinishThreads / kWarp;
constexpr int kMostSorted = kNear + kFar;

// The row that a CTA works on.
struct RowView {
  const float* logits;
  int64_t vocab;
  int tiles;
  float highest, scale, min_p;
  bool weighs;  // false: the largest logit is infinite, and there are no masses
  // Tokens that are out of the draw: guesses that did not hold. In shared memory.
  const int32_t* excluded = nullptr;
  int num_excluded = 0;

  __device__ bool excludes(uint32_t id) const {
    bool found = false;
    for (int i = 0; i < num_excluded; ++i) found = found || excluded[i] == static_cast<int32_t>(id);
    return found;
  }

  __device__ Mass mass(float x) const {
    return weighs ? mass_of(weight_of(exponent_of(x, highest, scale))) : 0;
  }
  // The mass of what min_p leaves.
  __device__ Mass mass_above(float x) const {
    const float weight = weight_of(exponent_of(x, highest, scale));
    return weight < min_p ? 0 : mass_of(weight);
  }
  // And of that what the draw is from.
  __device__ Mass drawn_mass(float x, uint32_t id) const { return excludes(id) ? 0 : mass_above(x); }
};

// What top_k and top_p leave: the most likely tokens, until there are `count` of them or their mass reaches
// `mass`.
struct Limits {
  uint32_t count;
  double mass;

  __device__ bool reached(uint32_t tokens, Mass sum) const {
    return tokens >= count || static_cast<double>(sum) >= mass;
  }
};

// Masses in shared memory to which threads add. There is no addition of 64-bit numbers there, so in halves:
// the lower one's old value tells of the carry.
template <int kSize>
struct MassSums {
  uint32_t low[kSize], high[kSize];

  __device__ void add(uint32_t i, Mass mass) {
    const auto lower = static_cast<uint32_t>(mass);
    const uint32_t before = atomicAdd(low + i, lower);
    const uint32_t upper = static_cast<uint32_t>(mass >> 32) + static_cast<uint32_t>(before + lower < before);
    if (upper != 0) atomicAdd(high + i, upper);
  }
  __device__ Mass at(uint32_t i) const { return (static_cast<Mass>(high[i]) << 32) | low[i]; }
  __device__ void clear() {
    for (int i = static_cast<int>(threadIdx.x); i < kSize; i += kFinishThreads) low[i] = high[i] = 0;
  }
};

// Exclusive prefix sum over the CTA's threads, and the total for all. Not inlined, like the sorts: a kernel
// of this length waits for its instructions.
__device__ __noinline__ Mass scan_masses(Mass value, Mass* total) {
  __shared__ Mass warps[kFinishWarps];
  const Mass inclusive = warp_inclusive(value);
  __syncthreads();  // the last call's readers are done
  if (threadIdx.x % kWarp == kWarp - 1) warps[threadIdx.x / kWarp] = inclusive;
  __syncthreads();
  if (threadIdx.x < kWarp) warps[threadIdx.x] = warp_inclusive(warps[threadIdx.x]);
  __syncthreads();
  const unsigned warp = threadIdx.x / kWarp;
  *total = warps[kFinishWarps - 1];
  return (warp == 0 ? 0 : warps[warp - 1]) + inclusive - value;
}

// Bitonic, largest first; size is a power of two.
__device__ __noinline__ void sort_descending(Entry* entries, int size) {
#pragma unroll 1
  for (int span = 2; span <= size; span *= 2) {
#pragma unroll 1
    for (int step = span / 2; step > 0; step /= 2) {
      __syncthreads();
#pragma unroll 1
      for (int i = static_cast<int>(threadIdx.x); i < size / 2; i += kFinishThreads) {
        const int low = 2 * i - (i & (step - 1));
        const Entry a = entries[low], b = entries[low + step];
        const bool descending = (low & span) == 0;
        if ((a < b) == descending) {
          entries[low] = b;
          entries[low + step] = a;
        }
      }
    }
  }
  __syncthreads();
}

// The same for as many entries as there are threads: a thread has one, and neighbours in a warp need no
// barrier. size: a power of two. entries has room for kFinishThreads more.
__device__ __noinline__ void sort_by_thread(Entry* entries, int size) {
  __syncthreads();
  const auto at = static_cast<int>(threadIdx.x);
  Entry own = at < size ? entries[at] : 0;
  __syncthreads();
  Entry* buffer = entries;
#pragma unroll 1
  for (int span = 2; span <= size; span *= 2) {
#pragma unroll 1
    for (int step = span / 2; step > 0; step /= 2) {
      Entry other = 0;
      if (step < kWarp) {
        if (at / kWarp * kWarp >= size) continue;  // a whole warp
        other = __shfl_xor_sync(0xffffffffU, own, step);
      } else {
        buffer[at] = own;
        __syncthreads();
        other = buffer[at ^ step];
        buffer = buffer == entries ? entries + kFinishThreads : entries;
      }
      const bool larger = ((at & span) == 0) == ((at & step) == 0);
      own = larger ? max(own, other) : min(own, other);
    }
  }
  __syncthreads();
  if (at < size) entries[at] = own;
  __syncthreads();
}

// Sorts entries[count], filled up with zeros; memory for kMostSorted. count <= kMostSorted.
__device__ inline void sort_filled(Entry* entries, int count) {
  int size = kWarp;
  while (size < count) size *= 2;
  for (int i = count + static_cast<int>(threadIdx.x); i < size; i += kFinishThreads) entries[i] = 0;
  if (size <= kFinishThreads) {
    sort_by_thread(entries, size);
  } else {
    sort_descending(entries, size);
  }
}

// f(id, logit, whether there is such a token) for all tokens, by whole warps.
template <class F>
__device__ void for_each_logit(const RowView& row, const F& f) {
  constexpr int kEach = 8;  // on their way at once
  for (int64_t base = threadIdx.x; base < row.vocab + threadIdx.x; base += kEach * kFinishThreads) {
    float x[kEach];
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const int64_t i = base + j * kFinishThreads;
      x[j] = i < row.vocab ? row.logits[i] : 0.0F;
    }
#pragma unroll 1
    for (int j = 0; j < kEach; ++j) {
      const int64_t i = base + j * kFinishThreads;
      f(static_cast<uint32_t>(i), x[0], i < row.vocab);
#pragma unroll
      for (int k = 1; k < kEach; ++k) x[k - 1] = x[k];  // registers cannot be indexed by j
    }
  }
}

// How many of the sorted entries[count] the limits leave, when `tokens` of mass `sum` come before them.
__device__ inline int limit_sorted(const RowView& row, const Entry* entries, int count, const Limits& limits,
                                   uint32_t tokens, Mass sum) {
  __shared__ int kept;
  if (threadIdx.x == 0) kept = count;
  const int each = (count + kFinishThreads - 1) / kFinishThreads;
  const int begin = static_cast<int>(threadIdx.x) * each;
  const int end = min(begin + each, count);
  Mass own = 0;
#pragma unroll 1
  for (int i = begin; i < end; ++i) own += row.mass(logit_of(entries[i]));
  Mass total = 0;
  Mass before = sum + scan_masses(own, &total);
#pragma unroll 1
  for (int i = begin; i < end; ++i) {
    before += row.mass(logit_of(entries[i]));
    if (limits.reached(tokens + static_cast<uint32_t>(i) + 1, before)) {
      atomicMin(&kept, i + 1);
      break;
    }
  }
  __syncthreads();
  return kept;
}

// The whole part of draw * total, for draw = bits / 2^24: the token drawn is the first, by id, whose sum
// passes it.
__device__ inline Mass share(Mass total, uint32_t bits) {
  return (__umul64hi(total, bits) << 40) | (total * bits >> 24);
}

// The token drawn among entries[count], a part at a time of their ids: nine bits, then nine bits.
__device__ inline int32_t draw_listed(const RowView& row, const Entry* entries, int count, uint32_t bits) {
  constexpr int kParts = 512;
  __shared__ MassSums<kParts> parts;
  __shared__ uint32_t chosen;
  __shared__ Mass chosen_before;
  Mass target = 0;
  uint32_t high = 0;
#pragma unroll 1
  for (int pass = 0; pass < 2; ++pass) {
    parts.clear();
    __syncthreads();
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kFinishThreads) {
      const uint32_t id = id_of(entries[i]);
      if (pass == 1 && id / kParts != high) continue;
      const Mass mass = row.drawn_mass(logit_of(entries[i]), id);
      if (mass != 0) parts.add(pass == 0 ? id / kParts : id % kParts, mass);
    }
    __syncthreads();
    const Mass own = threadIdx.x < kParts ? parts.at(threadIdx.x) : 0;
    Mass total = 0;
    const Mass before = scan_masses(own, &total);
    if (pass == 0) target = share(total, bits);
    if (target >= before && target - before < own) {
      chosen = threadIdx.x;
      chosen_before = before;
    }
    __syncthreads();
    target -= chosen_before;
    if (pass == 0) high = chosen;
    __syncthreads();
  }
  return static_cast<int32_t>(high * kParts + chosen);
}

// The token drawn among all whose entry is at least `border` and that min_p leaves, from the masses of the
// tiles (of those tokens alone).
__device__ inline int32_t draw_tiled(const RowView& row, const Mass* tile_masses, Entry border,
                                     uint32_t bits) {
  constexpr int kEach = kMaxTiles / kFinishThreads;
  __shared__ int chosen_tile;
  __shared__ Mass rest;
  __shared__ int32_t token;
  const int begin = static_cast<int>(threadIdx.x) * kEach;
  Mass masses[kEach];
  Mass own = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    masses[i] = begin + i < row.tiles ? tile_masses[begin + i] : 0;
    own += masses[i];
  }
  Mass total = 0;
  Mass before = scan_masses(own, &total);
  const Mass target = share(total, bits);
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (target >= before && target - before < masses[i]) {
      chosen_tile = begin + i;
      rest = target - before;
    }
    before += masses[i];
  }
  __syncthreads();
  if (threadIdx.x < kWarp) {
    constexpr int kLaneEach = kTile / kWarp;
    const int64_t first = static_cast<int64_t>(chosen_tile) * kTile + threadIdx.x * kLaneEach;
    Mass mine = 0;
    for (int i = 0; i < kLaneEach; ++i) {
      if (first + i >= row.vocab) continue;
      const float x = row.logits[first + i];
      const bool in = entry_of(key_of(x), static_cast<uint32_t>(first + i)) >= border;
      mine += in ? row.drawn_mass(x, static_cast<uint32_t>(first + i)) : 0;
    }
    Mass at = warp_inclusive(mine) - mine;
    for (int i = 0; i < kLaneEach; ++i) {
      if (first + i >= row.vocab) continue;
      const float x = row.logits[first + i];
      const bool in = entry_of(key_of(x), static_cast<uint32_t>(first + i)) >= border;
      const Mass mass = in ? row.drawn_mass(x, static_cast<uint32_t>(first + i)) : 0;
      if (rest >= at && rest - at < mass) token = static_cast<int32_t>(first + i);
      at += mass;
    }
  }
  __syncthreads();
  return token;
}

}  // namespace fathom::sample::cuda

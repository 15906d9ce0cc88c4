// The tiles of all groups of a grouped product, for kernels whose CTAs do one after another: counted once
// into shared memory, found in two looks, and given to whoever is free (other kernels may run beside, and
// tiles whose weights lie in the L2 cache are quick).
#pragma once

#include "ops/linear/cuda_tiles.cuh"

namespace fathom::ops::cuda {

// In shared memory. Without offsets all rows are one group's.
struct GroupTiles {
  static constexpr int kMostGroups = 1024;
  static constexpr int kMostTiles = 0xffff;

  int32_t firsts[kMostGroups + 1];  // the rows' offsets
  uint16_t upto[kMostGroups];       // tiles of the groups 0 .. g

  // Of tiles of `height` rows. By the whole CTA of kThreads; the offsets are there.
  template <int kThreads>
  __device__ void count(const TileArgs& args, int height) {
    static_assert(kThreads % 32 == 0);
    __shared__ int32_t of_chunks[kMostGroups / 32 + 1];
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
    const auto first_of = [&](int g) { return args.offsets != nullptr ? args.offsets[g] : g * args.rows; };
    for (int base = thread - lane; base <= args.groups; base += kThreads) {
      const int g = base + lane;
      const int32_t first = first_of(min(g, args.groups)), end = first_of(min(g + 1, args.groups));
      int32_t sum = (end - first + height - 1) / height;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const int32_t other = __shfl_up_sync(0xffffffffU, sum, step);
        if (lane >= step) sum += other;
      }
      if (g <= args.groups) firsts[g] = first;
      if (g < args.groups) upto[g] = static_cast<uint16_t>(sum);
      if (lane == 31) of_chunks[base / 32] = sum;
    }
    __syncthreads();
    for (int g = thread; g < args.groups; g += kThreads) {
      int32_t before = 0;
      for (int chunk = 0; chunk < g / 32; ++chunk) before += of_chunks[chunk];
      upto[g] = static_cast<uint16_t>(upto[g] + before);
    }
    __syncthreads();
  }

  __device__ int tiles(const TileArgs& args) const { return upto[args.groups - 1]; }

  // Tile `index`, below tiles(). By whole warps.
  __device__ RowTile at(const TileArgs& args, int height, int index) const {
    const int lane = static_cast<int>(threadIdx.x % 32), last = args.groups - 1;
    const auto first_past = [&](int g) {
      return __ffs(static_cast<int>(__ballot_sync(0xffffffffU, upto[min(g, last)] > index))) - 1;
    };
    const int chunk = first_past(lane * 32 + 31);
    const int group = chunk * 32 + first_past(chunk * 32 + lane);
    const int32_t first = firsts[group] + (index - (group > 0 ? upto[group - 1] : 0)) * height;
    return {group, first, min(firsts[group + 1] - first, height)};
  }
};

// Which tiles a CTA does, in shared memory: its first is blockIdx.x, the others it draws from the stream's
// counter. A warp draws ahead of those that follow it through a ring of fewer than kSlots stages.
struct TileTurns {
  static constexpr int kSlots = 16;

  volatile uint64_t slots[kSlots];  // the number of the CTA's tile << 32 | the tile

  // By the whole CTA, a barrier before anything else.
  __device__ void begin() {
    if (threadIdx.x < kSlots) slots[threadIdx.x] = 0;
  }
  // The CTA's tile of this number, above 0, of `tiles` in all: by one thread, one number after another, to
  // one past the CTA's last.
  __device__ void draw(uint32_t* counter, int tiles, int number) {
    const uint32_t drawn = atomicAdd(counter, 1U);
    // As many are drawn as there are tiles: by those that take none at first, none; by the others, one too
    // many.
    if (drawn + 1 == static_cast<uint32_t>(tiles)) atomicExch(counter, 0U);
    const uint32_t tile = min(gridDim.x, static_cast<unsigned>(tiles)) + drawn;
    slots[number % kSlots] = static_cast<uint64_t>(number) << 32 | tile;
  }
  // The same, once it is drawn; `tiles` or above when there is none.
  __device__ int at(int number) const {
    uint64_t slot;
    do {
      slot = slots[number % kSlots];
    } while (static_cast<int>(slot >> 32) != number);
    return static_cast<int>(static_cast<uint32_t>(slot));
  }
};

}  // namespace fathom::ops::cuda

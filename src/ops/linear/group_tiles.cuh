// The tiles of all groups of a grouped product, for kernels whose CTAs do one after another: counted once
// into shared memory, found in two looks, and given to whoever is free (other kernels may run beside, and
// tiles whose weights lie in the L2 cache are quick). Who brings what they need: piece_producers.cuh.
#pragma once

#include "ops/linear/cuda_tiles.cuh"
#include "ops/wgmma.cuh"

namespace fathom::ops::cuda {

// In shared memory. Without offsets all rows are one group's.
struct GroupTiles {
  static constexpr int kMostGroups = 1024;
  static constexpr int kMostTiles = 0xffff;

  uint64_t counted;                 // a barrier
  int32_t firsts[kMostGroups + 1];  // the rows' offsets
  uint16_t upto[kMostGroups];       // tiles of the groups 0 .. g

  // By one thread; a barrier before anything else.
  __device__ void begin() { barrier_init(&counted, 32); }

  // Of tiles of `height` rows. By one whole warp, once the offsets are there.
  __device__ void count(const TileArgs& args, int height) {
    constexpr int kChunks = 8;  // of 32 groups, at once
    const int lane = static_cast<int>(threadIdx.x % 32);
    const auto first_of = [&](int g) {
      g = min(g, args.groups);
      // Past the L1 cache, which may still have the last ones where nothing has been waited for yet.
      return args.offsets != nullptr ? __ldcg(args.offsets + g) : g * args.rows;
    };
    int32_t before = 0;
    for (int base = 0; base < args.groups; base += 32 * kChunks) {
      int32_t first[kChunks], sum[kChunks];
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        first[c] = first_of(base + c * 32 + lane);
        sum[c] = first_of(base + c * 32 + lane + 1);
      }
#pragma unroll
      for (int c = 0; c < kChunks; ++c) sum[c] = (sum[c] - first[c] + height - 1) / height;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
#pragma unroll
        for (int c = 0; c < kChunks; ++c) {
          const int32_t other = __shfl_up_sync(0xffffffffU, sum[c], step);
          if (lane >= step) sum[c] += other;
        }
      }
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        const int g = base + c * 32 + lane;
        if (g < args.groups) {
          firsts[g] = first[c];
          upto[g] = static_cast<uint16_t>(before + sum[c]);
        }
        before += __shfl_sync(0xffffffffU, sum[c], 31);
      }
    }
    if (lane == 0) firsts[args.groups] = first_of(args.groups);
    __syncwarp();
    barrier_arrive(&counted);
  }
  // Until they are counted.
  __device__ void wait() { barrier_wait(&counted, 0); }

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

// Which pieces (below) a CTA does, in shared memory: its first is blockIdx.x, the others it draws from the
// stream's counter. A warp draws ahead of those that follow it through a ring of fewer than kSlots stages.
struct PieceTurns {
  static constexpr int kSlots = 16;

  uint64_t drawn[kSlots];  // barriers
  int32_t slots[kSlots];

  // By one thread; a barrier before anything else.
  __device__ void begin() {
    for (int s = 0; s < kSlots; ++s) barrier_init(&drawn[s], 1);
  }
  // The CTA's piece of this number, above 0, of `pieces` in all: by one thread, one number after another, to
  // one past the CTA's last.
  __device__ void draw(uint32_t* counter, int pieces, int number) {
    const uint32_t before = atomicAdd(counter, 1U);
    // As many are drawn as there are pieces: by those that take none at first, none; by the others, one too
    // many.
    if (before + 1 == static_cast<uint32_t>(pieces)) atomicExch(counter, 0U);
    const int slot = (number - 1) % kSlots;
    slots[slot] = static_cast<int32_t>(min(gridDim.x, static_cast<unsigned>(pieces)) + before);
    barrier_arrive(&drawn[slot]);
  }
  // The same, once it is drawn; `pieces` or above when there is none.
  __device__ int at(int number) {
    const int slot = (number - 1) % kSlots;
    barrier_wait(&drawn[slot], static_cast<uint32_t>((number - 1) / kSlots) & 1U);
    return slots[slot];
  }
};

struct TileMaps {
  CUtensorMap x, weight;
};
// A dense product in the launch of a grouped one (GroupedLinearArgs::beside), or none.
template <bool kThere>
struct Beside;
template <>
struct Beside<true> {
  TileArgs args;
  TileMaps maps;
  bool early;  // begins before the kernel ahead has ended

  __device__ const TileArgs& args_or(const TileArgs& /*others*/) const { return args; }
  __device__ const CUtensorMap* x_map_or(bool beside, const CUtensorMap* others) const {
    return beside ? &maps.x : others;
  }
  __device__ const CUtensorMap* weight_map_or(bool beside, const CUtensorMap* others) const {
    return beside ? &maps.weight : others;
  }
};
template <>
struct Beside<false> {
  static constexpr bool early = false;

  __device__ const TileArgs& args_or(const TileArgs& others) const { return others; }
  __device__ const CUtensorMap* x_map_or(bool /*beside*/, const CUtensorMap* others) const { return others; }
  __device__ const CUtensorMap* weight_map_or(bool /*beside*/, const CUtensorMap* others) const {
    return others;
  }
};

// The pieces of a launch, tiles of kHeight rows of tokens by kRows of weights: those of a dense product
// beside the groups, if there is one, then the groups'.
template <bool kBeside, int kHeight, int kRows>
struct Pieces {
  struct Piece {
    bool beside;
    RowTile tile;
    int n_first;
  };

  const TileArgs& args;
  const TileArgs& other;  // the dense one
  GroupTiles& groups;
  int stripes = ceil_div(args.n, kRows);
  int other_stripes = kBeside ? ceil_div(other.n, kRows) : 0;
  int others = kBeside ? other_stripes * ceil_div(other.rows, kHeight) : 0;

  __device__ const TileArgs& args_of(const Piece& piece) const {
    return kBeside && piece.beside ? other : args;
  }
  // Once the groups are counted.
  __device__ int count() const { return others + groups.tiles(args) * stripes; }
  // Piece `index`, below count(). By whole warps; those from `others` on once the groups are counted.
  __device__ Piece at(int index) const {
    if (kBeside && index < others) {
      const int first = index / other_stripes * kHeight;
      return {true, {0, first, min(other.rows - first, kHeight)}, index % other_stripes * kRows};
    }
    index -= others;
    return {false, groups.at(args, kHeight, index / stripes), index % stripes * kRows};
  }
};

}  // namespace fathom::ops::cuda

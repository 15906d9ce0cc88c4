// The tiles of all groups of a grouped product, for kernels whose CTAs do one after another: counted once
// into shared memory, found in two looks, and given to whoever is free (other kernels may run beside, and
// tiles whose weights lie in the L2 cache are quick).
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

// The warp that fills the ring of a kernel whose CTAs do one piece after another: kStages stages of kDepth of
// k, rows of 128 bytes, kRows of weights and then the tokens'. Before the kernel ahead has ended a dense
// product begins that may, or else, where the groups are known, the weights of the first piece come; more
// pieces are drawn afterwards. The kernel behind this one may start once all before this one has ended.
template <int kStages, int kDepth, int kTokens, int kRows, bool kBeside>
struct PieceProducer {
  static_assert(kStages < PieceTurns::kSlots);
  static constexpr int kRowBytes = 128;
  static constexpr int kStageBytes = (kRows + kTokens) * kRowBytes;
  // The next piece is drawn when so many steps of this one are still to come, which is longer than drawing
  // takes. Not sooner: whoever is done first is to have it.
  static constexpr int kStepsAfterDraw = 16;
  static constexpr int kRowsOfLane = (kTokens + 31) / 32;

  const Pieces<kBeside, kTokens, kRows>& pieces;
  const Beside<kBeside>& beside;
  const CUtensorMap& x_map;
  const CUtensorMap& weight_map;
  PieceTurns& turns;
  uint32_t* counter;
  uint64_t* full;   // [kStages]
  uint64_t* empty;  // [kStages]
  uint8_t* stages;  // [kStages, kStageBytes]
  Ring<kStages> ring = {};
  bool again = false;  // the ring has gone round
  bool counted = false;
  int ahead = 0;  // steps of the first piece whose weights are asked for

  __device__ void run() {
    int index = static_cast<int>(blockIdx.x);
    if (pieces.args.offsets == nullptr || (pieces.args.offsets_early && pieces.args.gather == nullptr)) {
      pieces.groups.count(pieces.args, kTokens);
      if (index < pieces.count()) bring_weights(index);
      wait();
    } else if (!beside.early || index >= pieces.others) {
      count();
    }
    for (int turn = 1; index < (counted ? pieces.count() : pieces.others); index = turns.at(turn++)) {
      bring(index, turn);
      if (counted) continue;
      count();
      if (threadIdx.x % 32 == 0) turns.draw(counter, pieces.count(), turn);
    }
  }

  __device__ void wait() {
    device::cuda::wait_for_previous();
    device::cuda::let_next_start();
    counted = true;
  }
  __device__ void count() {
    wait();  // the groups' offsets may be the output of the kernel ahead
    pieces.groups.count(pieces.args, kTokens);
  }

  static __device__ uint32_t bytes_of(const TileArgs& args, const RowTile& tile) {
    return static_cast<uint32_t>((kRows + (args.gather != nullptr ? tile.count : kTokens)) * kRowBytes);
  }

  // What of the first piece's weights the ring has room for.
  __device__ void bring_weights(int index) {
    const auto piece = pieces.at(index);
    const TileArgs& args = pieces.args_of(piece);
    const CUtensorMap* weight = beside.weight_map_or(piece.beside, &weight_map);
    ahead = min((args.k + kDepth - 1) / kDepth, kStages);
    if (threadIdx.x % 32 != 0) return;
    for (int step = 0; step < ahead; ++step) {
      barrier_expect(&full[step], bytes_of(args, piece.tile));
      copy_tile(stages + step * kStageBytes, weight, &full[step], step * kDepth,
                piece.tile.group * args.n + piece.n_first);
    }
  }

  __device__ void bring(int index, int turn) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    const auto piece = pieces.at(index);
    const TileArgs& args = pieces.args_of(piece);
    const CUtensorMap* x = beside.x_map_or(piece.beside, &x_map);
    const CUtensorMap* weight = beside.weight_map_or(piece.beside, &weight_map);
    const bool gathers = args.gather != nullptr;
    const int32_t weight_row = piece.tile.group * args.n + piece.n_first;
    int32_t rows[kRowsOfLane];  // a lane brings the tile's lines lane, lane + 32 ..
#pragma unroll
    for (int i = 0; i < kRowsOfLane; ++i) {
      const int line = i * 32 + lane;
      rows[i] = gathers && line < piece.tile.count ? args.gather[piece.tile.first + line] : -1;
    }
    const uint32_t bytes = bytes_of(args, piece.tile);
    const int steps = (args.k + kDepth - 1) / kDepth;
    for (int step = 0; step < steps; ++step, ring.next()) {
      const int s = ring.stage;
      uint8_t* to = stages + s * kStageBytes;
      if (again) barrier_wait(&empty[s], ring.phase ^ 1U);
      if (lane == 0) {
        if (step >= ahead) {
          barrier_expect(&full[s], bytes);
          copy_tile(to, weight, &full[s], step * kDepth, weight_row);
        }
        if (!gathers) copy_tile(to + kRows * kRowBytes, x, &full[s], step * kDepth, piece.tile.first);
      }
      __syncwarp();
#pragma unroll
      for (int i = 0; i < kRowsOfLane; ++i) {
        if (rows[i] >= 0)
          copy_tile(to + (kRows + i * 32 + lane) * kRowBytes, x, &full[s], step * kDepth, rows[i]);
      }
      if (s == kStages - 1) again = true;
      if (counted && lane == 0 && step == max(steps - kStepsAfterDraw, 0))
        turns.draw(counter, pieces.count(), turn);
    }
    ahead = 0;
  }
};

}  // namespace fathom::ops::cuda

// The warps that fill the ring of a kernel whose CTAs do one piece after another (group_tiles.cuh): kStages
// stages of kBlocks of kDepth of k, rows of 128 bytes, kRows of weights and then kTokens of tokens. One warp
// brings the weights and draws pieces, one the tokens, and either that one or another what else a stage
// takes: for each step a warp does as little as can be, since a CTA that is alone with its piece is as fast
// as they are. And how such a kernel is launched.
#pragma once

#include <algorithm>

#include "base/check.h"
#include "device/cuda/shared_memory.h"
#include "ops/linear/group_tiles.cuh"

namespace fathom::ops::cuda {

// Whether a CTA has a piece `index` to do, for a warp that draws none itself. Waits until the pieces are
// known, and all before this kernel have ended, unless the piece is one that begins earlier.
template <class Pieces>
struct Following {
  const Pieces& pieces;
  bool counted = false;

  __device__ bool has(int index) {
    if (index < pieces.others) return true;
    if (!counted) {
      pieces.groups.wait();
      device::cuda::wait_for_previous();
      counted = true;
    }
    return index < pieces.count();
  }
};

// A stage has kBlocks of kDepth of k, each as a tile of its own: all of the weights', then all of the
// tokens'.
template <int kStages, int kDepth, int kBlocks, int kTokens, int kRows, bool kBeside>
struct PieceProducers {
  static_assert(kStages < PieceTurns::kSlots);
  static constexpr int kRowBytes = 128;
  static constexpr int kStageBytes = kBlocks * (kRows + kTokens) * kRowBytes;
  static constexpr int kStep = kBlocks * kDepth;
  // The next piece is drawn when so many steps of this one are still to come, which is longer than drawing
  // takes. Not sooner: whoever is done first is to have it.
  static constexpr int kStepsAfterDraw = 16 / kBlocks;
  static constexpr int kRowsOfLane = (kTokens + 31) / 32;

  const Pieces<kBeside, kTokens, kRows>& pieces;
  const Beside<kBeside>& beside;
  const CUtensorMap& x_map;
  const CUtensorMap& weight_map;
  PieceTurns& turns;
  uint32_t* counter;
  const uint64_t* full_barriers;   // [kStages]
  const uint64_t* empty_barriers;  // [kStages]
  const uint8_t* ring_stages;      // [kStages, kStageBytes]
  // In shared memory.
  uint32_t full = kept(shared_address(full_barriers));
  uint32_t empty = kept(shared_address(empty_barriers));
  uint32_t stages = kept(shared_address(ring_stages));

  // By one warp. Weights are nobody's output: those of a product that may begin early come before the kernel
  // ahead has ended, and where the groups are known then, as many of the first piece's as the ring holds.
  __device__ void bring_weights() const {
    const bool first_lane = threadIdx.x % 32 == 0;
    const bool known =
        pieces.args.offsets == nullptr || (pieces.args.offsets_early && pieces.args.gather == nullptr);
    int index = static_cast<int>(blockIdx.x);
    bool counted = false, waited = false;
    const auto count = [&](bool wait) {
      if (wait && !waited) device::cuda::wait_for_previous();
      waited = waited || wait;
      pieces.groups.count(pieces.args, kTokens);
      counted = true;
    };
    if (known) {
      count(false);
    } else if (!beside.early || index >= pieces.others) {
      count(true);
    }
    Ring<kStages> ring;
    bool again = false;  // the ring has gone round
    for (int turn = 1; index < (counted ? pieces.count() : pieces.others); index = turns.at(turn++)) {
      const auto piece = pieces.at(index);
      const TileArgs& args = pieces.args_of(piece);
      const CUtensorMap* map = beside.weight_map_or(piece.beside, &weight_map);
      const int32_t row = uniform(piece.tile.group * args.n + piece.n_first);
      const auto bytes = uniform(  // of a block
          static_cast<uint32_t>((kRows + (args.gather != nullptr ? piece.tile.count : kTokens)) * kRowBytes));
      const int blocks = uniform(ceil_div(args.k, kDepth)), steps = ceil_div(blocks, kBlocks);
      // The counter is the kernels' ahead until they have ended.
      const int draws = !counted ? steps : max(steps - kStepsAfterDraw, waited ? 0 : min(steps, kStages) - 1);
#pragma unroll 1
      for (int step = 0; step < steps; ++step, ring.next()) {
        const auto s = static_cast<uint32_t>(ring.stage);
        if (again) barrier_wait(empty + s * 8, ring.phase ^ 1U);
        const int here = min(blocks - step * kBlocks, kBlocks);
        const uint32_t to = stages + s * kStageBytes;
        copy_tile_by_warp<true>(to, map, full + s * 8, step * kStep, row,
                                static_cast<uint32_t>(here) * bytes);
#pragma unroll
        for (int b = 1; b < kBlocks; ++b) {
          if (b < here)
            copy_tile_by_warp<false>(to + b * kRows * kRowBytes, map, full + s * 8, step * kStep + b * kDepth,
                                     row);
        }
        again = again || ring.stage == kStages - 1;
        if (step == draws && first_lane) {
          if (!waited) device::cuda::wait_for_previous();
          turns.draw(counter, pieces.count(), turn);
        }
      }
      if (counted) {
        waited = true;
      } else {
        count(true);
        if (first_lane) turns.draw(counter, pieces.count(), turn);
      }
    }
  }

  // A piece's tokens, as bring() has them.
  struct Tokens {
    const PieceProducers& all;
    const CUtensorMap* map = nullptr;
    int32_t first = 0;               // the only row, or the first of those that lie together
    bool alone = false;              // of rows that are gathered, the only one
    int32_t rows[kRowsOfLane] = {};  // of x, that are gathered: the tile's lines lane, lane + 32 ..
    int k = 0;

    template <class Piece>
    __device__ void begin(const TileArgs& args, const Piece& piece) {
      map = all.beside.x_map_or(piece.beside, &all.x_map);
      const bool gathers = args.gather != nullptr;
#pragma unroll
      for (int i = 0; i < kRowsOfLane; ++i) {
        const int line = i * 32 + static_cast<int>(threadIdx.x % 32);
        rows[i] = gathers && line < piece.tile.count ? args.gather[piece.tile.first + line] : -1;
      }
      k = uniform(args.k);
      alone = !gathers || piece.tile.count == 1;
      first = uniform(gathers ? rows[0] : piece.tile.first);
    }
    __device__ void bring(int stage, int step) {
      const uint32_t to = all.stages + stage * kStageBytes + kBlocks * kRows * kRowBytes;
      const uint32_t full = all.full + stage * 8;
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        const int column = step * kStep + b * kDepth;
        if (b > 0 && column >= k) break;
        const uint32_t block = to + b * kTokens * kRowBytes;
        if (alone) {
          copy_tile_by_warp<false>(block, map, full, column, first);
          continue;
        }
#pragma unroll
        for (int i = 0; i < kRowsOfLane; ++i) {
          const int line = i * 32 + static_cast<int>(threadIdx.x % 32);
          if (rows[i] >= 0) copy_tile(block + line * kRowBytes, map, full, column, rows[i]);
        }
      }
    }
  };
  __device__ Tokens tokens() const { return {*this}; }

  // By one warp for each call; Tokens and what else belongs to a stage, begin(args, piece) for a piece and
  // then bring(stage, step) for its steps. The kernel behind this one may start once all before this one have
  // ended.
  template <class... What>
  __device__ void bring(What... what) const {
    int index = static_cast<int>(blockIdx.x);
    bool waited = false;
    const auto wait = [&] {
      if (waited) return;
      device::cuda::wait_for_previous();
      device::cuda::let_next_start();
      waited = true;
    };
    if (beside.early && index < pieces.others) {
      // What an early product reads was there before this kernel began; but the L1 cache, which only a wait
      // for the kernel ahead is known to empty, may still have what was there the last time.
      asm volatile("fence.acq_rel.gpu;" ::: "memory");
    } else {
      wait();
    }
    Following<Pieces<kBeside, kTokens, kRows>> following{pieces};
    Ring<kStages> ring;
    bool again = false;
    for (int turn = 1; following.has(index); index = turns.at(turn++)) {
      if (following.counted) wait();
      const auto piece = pieces.at(index);
      const TileArgs& args = pieces.args_of(piece);
      (what.begin(args, piece), ...);
      const int steps = uniform(ceil_div(args.k, kStep));
#pragma unroll 1
      for (int step = 0; step < steps; ++step, ring.next()) {
        if (again) barrier_wait(empty + static_cast<uint32_t>(ring.stage) * 8, ring.phase ^ 1U);
        (what.bring(ring.stage, step), ...);
        again = again || ring.stage == kStages - 1;
      }
    }
    wait();
  }
};

// Launches kKernel(args, x map, weight map, beside, counter), whose CTAs have `resident` on a multiprocessor
// and pieces of kTokens by kRows. maps_of: the maps of a call.
template <auto kKernel, int kTokens, int kRows, bool kBeside, class MapsOf>
void launch_pieces(device::cuda::Stream& stream, const TileCall& call, int resident, int threads, int bytes,
                   const MapsOf& maps_of) {
  FATHOM_CHECK(
      call.args.groups <= GroupTiles::kMostGroups && call.row_tiles(kTokens) <= GroupTiles::kMostTiles,
      "{} groups, {} tiles", call.args.groups, call.row_tiles(kTokens));
  static device::cuda::SharedMemory memory;
  memory.allow(stream, kKernel, bytes);
  int64_t tiles = ceil_div<int64_t>(call.args.n, kRows) * call.row_tiles(kTokens);
  Beside<kBeside> beside;
  if constexpr (kBeside) {
    beside = {call.beside->args, maps_of(*call.beside), call.beside_early};
    tiles += ceil_div<int64_t>(call.beside->args.n, kRows) * call.beside->row_tiles(kTokens);
  }
  const int64_t ctas = std::min<int64_t>(tiles, int64_t{resident} * stream.gpu().multiprocessors);
  const TileMaps maps = maps_of(call);
  device::cuda::launch_early(stream, kKernel, dim3(static_cast<unsigned>(ctas)),
                             dim3(static_cast<unsigned>(threads)), bytes, call.args, maps.x, maps.weight,
                             beside, stream.counter());
}

}  // namespace fathom::ops::cuda

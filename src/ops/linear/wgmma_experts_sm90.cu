// BF16 and experts of few rows (up to 64) on Hopper, bound by reading the weights: one warp brings 64 rows of
// weights and an expert's tokens with the bulk copy engine, gathered row by row where they lie apart, through
// a ring as long as two CTAs of a multiprocessor have room for; a warpgroup multiplies. A CTA does one tile
// after another, and the ring goes on filling while results go out. Each output is one chain of k16 products
// in the order of k, as in mma.cu, and so are the bits.
#include <algorithm>

#include "base/check.h"
#include "device/cuda/shared_memory.h"
#include "device/cuda/tensor_map.h"
#include "ops/linear/cuda_kernels.h"
#include "ops/linear/group_tiles.cuh"
#include "ops/wgmma.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kRows = 64;   // of the weights
constexpr int kDepth = 64;  // of k a stage: 128 bytes
constexpr int kRowBytes = kDepth * 2;
constexpr int kThreads = 128 + 32;
constexpr int kResident = 2;  // CTAs a multiprocessor
// The next tile is drawn when so many steps of this one are under way, which is longer than drawing takes.
constexpr int kStepsBeforeDraw = 4;

template <int kTokens>
struct Shape {
  static constexpr int kWeightBytes = kRows * kRowBytes;
  static constexpr int kStageBytes = kWeightBytes + kTokens * kRowBytes;
  static constexpr int kStages =
      (224 / kResident - 8) * 1024 / kStageBytes;  // 8 KB: the groups' tiles, and room to align
  static constexpr int kBytes = kStages * kStageBytes + 1024;
  static constexpr int kRowsOfLane = (kTokens + 31) / 32;
};

template <int kTokens>
__global__ void __launch_bounds__(kThreads, kResident)
    wgmma_experts_kernel(const __grid_constant__ TileArgs args, const __grid_constant__ CUtensorMap x_map,
                         const __grid_constant__ CUtensorMap weight_map, uint32_t* counter) {
  using S = Shape<kTokens>;
  static_assert(S::kStages < TileTurns::kSlots);
  extern __shared__ uint8_t shared_bytes[];
  __shared__ uint64_t full[S::kStages], empty[S::kStages];
  __shared__ GroupTiles groups;
  __shared__ TileTurns turns;
  uint8_t* stages = shared_bytes + (1024 - shared_address(shared_bytes) % 1024) % 1024;

  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  if (thread == 0) {
    for (int s = 0; s < S::kStages; ++s) {
      barrier_init(&full[s], 1);
      barrier_init(&empty[s], 4);
    }
    barrier_init_fence();
  }
  turns.begin();
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();  // the groups' offsets may be its output
  groups.count<kThreads>(args, kTokens);

  const int stripes = (args.n + kRows - 1) / kRows;
  const int tiles = groups.tiles(args) * stripes;
  const int steps = args.k / kDepth;
  const bool gathers = args.gather != nullptr;
  Ring<S::kStages> ring;
  if (thread >= 128) {
    bool again = false;  // the ring has gone round
    for (int index = static_cast<int>(blockIdx.x), turn = 1; index < tiles; index = turns.at(turn++)) {
      const RowTile tile = groups.at(args, kTokens, index / stripes);
      const int32_t weight_row = tile.group * args.n + index % stripes * kRows;
      int32_t rows[S::kRowsOfLane];  // a lane brings the tile's lines lane, lane + 32 ..
#pragma unroll
      for (int i = 0; i < S::kRowsOfLane; ++i) {
        const int line = i * 32 + lane;
        rows[i] = gathers && line < tile.count ? args.gather[tile.first + line] : -1;
      }
      const auto bytes =
          static_cast<uint32_t>(S::kWeightBytes + (gathers ? tile.count : kTokens) * kRowBytes);
      for (int step = 0; step < steps; ++step, ring.next()) {
        const int s = ring.stage;
        uint8_t* stage = stages + s * S::kStageBytes;
        if (again) barrier_wait(&empty[s], ring.phase ^ 1U);
        if (lane == 0) {
          barrier_expect(&full[s], bytes);
          copy_tile(stage, &weight_map, &full[s], step * kDepth, weight_row);
          if (!gathers) copy_tile(stage + S::kWeightBytes, &x_map, &full[s], step * kDepth, tile.first);
        }
        __syncwarp();
#pragma unroll
        for (int i = 0; i < S::kRowsOfLane; ++i) {
          if (rows[i] >= 0)
            copy_tile(stage + S::kWeightBytes + (i * 32 + lane) * kRowBytes, &x_map, &full[s], step * kDepth,
                      rows[i]);
        }
        if (s == S::kStages - 1) again = true;
        if (lane == 0 && step == min(steps, kStepsBeforeDraw) - 1) turns.draw(counter, tiles, turn);
      }
    }
    return;
  }

  const auto release = [&](int s) {
    if (lane == 0) barrier_arrive(&empty[s]);
  };
  for (int index = static_cast<int>(blockIdx.x), turn = 1; index < tiles; index = turns.at(turn++)) {
    const RowTile tile = groups.at(args, kTokens, index / stripes);
    float sum[kTokens / 2];  // set by the first product
    int last = 0;
    for (int step = 0; step < steps; ++step, ring.next()) {
      const int s = ring.stage;
      barrier_wait(&full[s], ring.phase);
      const uint64_t w = wgmma_tile(stages + s * S::kStageBytes);
      const uint64_t x = wgmma_tile(stages + s * S::kStageBytes + S::kWeightBytes);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < kDepth / 16; ++k) wgmma_shared(sum, w + 2 * k, x + 2 * k, step > 0 || k > 0);
      wgmma_commit();
      wgmma_wait<1>();
      if (step > 0) release(last);  // the products of the step before are done
      last = s;
    }
    wgmma_wait<0>();
    release(last);
    store_sums(args, 0, tile, 0, index % stripes * kRows + thread / 32 * 16, sum);
  }
}

template <int kTokens>
void launch(device::cuda::Stream& stream, const TileCall& call) {
  using S = Shape<kTokens>;
  const auto& args = call.args;
  const int box_rows = args.gather != nullptr ? 1 : kTokens;
  const CUtensorMap x_map =
      device::cuda::tile_map_16bit(stream, args.x, call.x_rows, args.k, args.x_stride * 2, box_rows, kDepth);
  const CUtensorMap weight_map = device::cuda::tile_map_16bit(
      stream, args.weight, int64_t{args.groups} * args.n, args.k, args.k_stride * 2, kRows, kDepth);
  const auto kernel = wgmma_experts_kernel<kTokens>;
  static device::cuda::SharedMemory memory;
  memory.allow(stream, kernel, S::kBytes);
  FATHOM_CHECK(call.row_tiles(kTokens) <= GroupTiles::kMostTiles, "{} tiles", call.row_tiles(kTokens));
  const int64_t tiles = ceil_div<int64_t>(args.n, kRows) * call.row_tiles(kTokens);
  const int64_t ctas = std::min<int64_t>(tiles, kResident * stream.gpu().multiprocessors);
  device::cuda::launch_early(stream, kernel, dim3(static_cast<unsigned>(ctas)), dim3(kThreads), S::kBytes,
                             args, x_map, weight_map, stream.counter());
}

}  // namespace

bool linear_wgmma_experts(device::cuda::Stream& stream, const TileCall& call) {
  const auto& args = call.args;
  // Groups differ in their rows: room for twice the average, where that costs nothing but tensor work.
  const int64_t rows = call.rows_of_a_group() * 2;
  const bool fits = call.weight_dtype == device::DType::kBF16 && args.offsets != nullptr &&
                    args.groups <= GroupTiles::kMostGroups && args.k % kDepth == 0 &&
                    args.k_stride == args.k && reinterpret_cast<uintptr_t>(args.weight) % 16 == 0;
  if (!fits || rows > 64) return false;
  if (rows <= 8) {
    launch<8>(stream, call);
  } else if (rows <= 16) {
    launch<16>(stream, call);
  } else if (rows <= 32) {
    launch<32>(stream, call);
  } else {
    launch<64>(stream, call);
  }
  stream.launched("linear (wgmma, experts)");
  return true;
}

}  // namespace fathom::ops::cuda

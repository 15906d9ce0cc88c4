// Many rows on Hopper: one warp brings tiles with the bulk copy engine, warpgroups multiply them with wgmma.
// A CTA does one tile of y after another, and while its results go out the next one's operands come in. Each
// output is one chain of k16 products in the order of k, as in mma.cu.
#include <algorithm>
#include <iterator>

#include "device/cuda/shared_memory.h"
#include "device/cuda/tensor_map.h"
#include "ops/linear/cuda_kernels.h"
#include "ops/linear/store_rows.cuh"
#include "ops/linear/tile_bands.cuh"
#include "ops/wgmma.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kDepth = 64;       // of k a stage: 128 bytes
constexpr int kBandRows = 2048;  // of x, that take turns with the same weights

// Tiles of 128 columns with two CTAs on a multiprocessor, or of 256 with one CTA, which reads less for its
// products. kParted: parts of k are added up (Weight::parted), which takes the registers of two CTAs.
template <int kConsumers, int kColumns_, bool kParted>
struct Shape {
  static constexpr int kColumns = kColumns_;
  static constexpr int kSums = kColumns / 2;  // of a thread
  static constexpr int kCtas =
      kColumns == 128 && !(kParted && kConsumers > 1) ? 2 : 1;  // on a multiprocessor
  static constexpr int kRows = 64 * kConsumers;
  static constexpr int kThreads = 128 * kConsumers + 32;
  static constexpr int kXBytes = kRows * kDepth * 2;
  static constexpr int kWeightBytes = kColumns * kDepth * 2;
  static constexpr int kStageBytes = kXBytes + kWeightBytes;
  static constexpr int kStages = 220 * 1024 / kCtas / kStageBytes;
  static constexpr int kBytes = kStages * kStageBytes + 1024;  // and room to align
};

// All tiles of a call, in the order in which they are done: of groups columns fastest; else in bands of rows.
struct TileGrid {
  int columns, rows, heads, band;

  struct Place {
    int column;
    RowTile tile;  // count 0: there are no more
  };
  __device__ int tiles() const { return columns * rows * heads; }
  // By whole warps.
  __device__ Place at(const TileArgs& args, int index, int height) const {
    if (args.offsets != nullptr) return {index % columns, find_row_tile(args, index / columns, height)};
    const int head = index / (columns * rows);
    const BandPlace place = place_in_bands(index - head * columns * rows, columns, rows, band);
    const int row = place.row * height;
    return {place.across, {head, row, min(height, args.rows - row)}};
  }
};

template <int kConsumers, int kColumns, bool kParted>
__global__ void __launch_bounds__(Shape<kConsumers, kColumns, kParted>::kThreads,
                                  Shape<kConsumers, kColumns, kParted>::kCtas)
    wgmma_kernel(const __grid_constant__ TileArgs args, const __grid_constant__ CUtensorMap x_map,
                 const __grid_constant__ CUtensorMap weight_map, const TileGrid grid) {
  using S = Shape<kConsumers, kColumns, kParted>;
  extern __shared__ uint8_t shared_bytes[];
  __shared__ uint64_t full[S::kStages], empty[S::kStages];
  uint8_t* stages = shared_bytes + (1024 - shared_address(shared_bytes) % 1024) % 1024;

  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    for (int s = 0; s < S::kStages; ++s) {
      barrier_init(&full[s], 1);
      barrier_init(&empty[s], kConsumers);
    }
    barrier_init_fence();
  }
  __syncthreads();

  const bool grouped = args.offsets != nullptr;
  const int steps = args.k / kDepth;
  int turn = 0;  // steps of all tiles so far: the stages go round
  if (thread >= kConsumers * 128) {
    for (int index = static_cast<int>(blockIdx.x); index < grid.tiles();
         index += static_cast<int>(gridDim.x)) {
      const auto [across, tile] = grid.at(args, index, S::kRows);
      if (tile.count <= 0) break;
      if (thread % 32 == 0) {
        const int32_t x_column = grouped ? 0 : static_cast<int32_t>(tile.group * args.x_step);
        const int32_t weight_row = tile.group * args.n + across * S::kColumns;
        for (int step = 0; step < steps; ++step, ++turn) {
          const int s = turn % S::kStages;
          if (turn >= S::kStages) barrier_wait(&empty[s], static_cast<uint32_t>(turn / S::kStages - 1) & 1U);
          barrier_expect(&full[s], S::kStageBytes);
          copy_tile(stages + s * S::kStageBytes, &x_map, &full[s], x_column + step * kDepth, tile.first);
          copy_tile(stages + s * S::kStageBytes + S::kXBytes, &weight_map, &full[s], step * kDepth,
                    weight_row);
        }
      }
      __syncwarp();
    }
    return;
  }

  const int consumer = thread / 128;
  const auto release = [&](int at) {
    if (thread % 128 == 0) barrier_arrive(&empty[at % S::kStages]);
  };
  for (int index = static_cast<int>(blockIdx.x); index < grid.tiles(); index += static_cast<int>(gridDim.x)) {
    const auto [across, tile] = grid.at(args, index, S::kRows);
    if (tile.count <= 0) break;
    float sums[S::kSums];  // of a part of k, set by its first products
    float totals[kParted ? S::kSums : 1];
    for (int first = 0, end = 0; first < steps; first = end) {
      end = kParted ? min(first + args.part / kDepth, steps) : steps;
      for (int step = first; step < end; ++step, ++turn) {
        const int s = turn % S::kStages;
        barrier_wait(&full[s], static_cast<uint32_t>(turn / S::kStages) & 1U);
        const uint64_t x = wgmma_tile(stages + s * S::kStageBytes + consumer * 64 * kDepth * 2);
        const uint64_t w = wgmma_tile(stages + s * S::kStageBytes + S::kXBytes);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < kDepth / 16; ++k) wgmma_shared(sums, x + 2 * k, w + 2 * k, step > first || k > 0);
        wgmma_commit();
        // The products of the step before are done: its tiles may be overwritten.
        wgmma_wait<1>();
        if (step > first) release(turn - 1);
      }
      wgmma_wait<0>();
      release(turn - 1);
      if constexpr (kParted) {
#pragma unroll
        for (int i = 0; i < S::kSums; ++i) totals[i] = first == 0 ? sums[i] : totals[i] + sums[i];
      }
    }
    // 128 columns at once, of which each may be the weight's last.
#pragma unroll
    for (int first = 0; first < S::kSums; first += 64) {
      float part[64];
#pragma unroll
      for (int i = 0; i < 64; ++i)
        part[i] = kParted ? totals[(first + i) % std::size(totals)] : sums[first + i];
      store_rows(args, tile, consumer * 64, across * S::kColumns + first * 2, part);
    }
  }
}

template <int kConsumers, int kColumns, bool kParted = false>
void launch(device::cuda::Stream& stream, const TileCall& call) {
  using S = Shape<kConsumers, kColumns, kParted>;
  const auto& args = call.args;
  const int64_t groups = args.offsets != nullptr ? args.groups : call.heads;
  const int64_t x_columns = (call.heads - 1) * args.x_step + args.k;
  const CUtensorMap x_map = device::cuda::tile_map_16bit(stream, args.x, call.max_rows, x_columns,
                                                         args.x_stride * 2, S::kRows, kDepth);
  const CUtensorMap weight_map = device::cuda::tile_map_16bit(stream, args.weight, groups * args.n, args.k,
                                                              args.k_stride * 2, S::kColumns, kDepth);
  const auto kernel = wgmma_kernel<kConsumers, kColumns, kParted>;
  static device::cuda::SharedMemory memory;
  memory.allow(stream, kernel, S::kBytes);
  const TileGrid tiles{static_cast<int>(ceil_div<int64_t>(args.n, S::kColumns)),
                       static_cast<int>(call.row_tiles(S::kRows)), static_cast<int>(call.heads),
                       kBandRows / S::kRows};
  const int ctas =
      std::min(tiles.columns * tiles.rows * tiles.heads, S::kCtas * stream.gpu().multiprocessors);
  kernel<<<static_cast<unsigned>(ctas), S::kThreads, S::kBytes, stream.handle()>>>(args, x_map, weight_map,
                                                                                   tiles);
}

}  // namespace

bool linear_wgmma(device::cuda::Stream& stream, const TileCall& call) {
  const auto& args = call.args;
  const int64_t rows = args.offsets != nullptr ? call.max_rows / args.groups : call.max_rows;
  const bool fits =
      call.weight_dtype == device::DType::kBF16 && args.k % kDepth == 0 && args.gather == nullptr &&
      args.k_stride == args.k && reinterpret_cast<uintptr_t>(args.weight) % 16 == 0 &&
      reinterpret_cast<uintptr_t>(args.y) % 8 == 0 && args.y_stride % 2 == 0 && args.y_step % 2 == 0;
  if (!fits || rows <= 64) return false;
  if (args.part < args.k) {
    launch<2, 128, true>(stream, call);
  } else if (rows <= 96) {
    launch<1, 128>(stream, call);
  } else if (ceil_div<int64_t>(args.n, 256) * call.row_tiles(128) * call.heads >=
             2 * int64_t{stream.gpu().multiprocessors}) {
    launch<2, 256>(stream, call);
  } else {
    launch<2, 128>(stream, call);
  }
  stream.launched("linear (wgmma)");
  return true;
}

}  // namespace fathom::ops::cuda

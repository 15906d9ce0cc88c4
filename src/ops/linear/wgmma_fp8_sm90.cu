// FP8 weights and many rows on Hopper: one warp brings tiles with the bulk copy engine; each warpgroup widens
// its 64 rows of weights to BF16 in registers and multiplies them with all tokens of the tile (wgmma takes
// one operand from registers). While one warpgroup widens, the other's products run. The CTAs of a cluster
// stand side by side over the weights' rows and share their tokens: each brings a slice to all. The order of
// the sums is that of mma_fp8.cu, and so are the bits.
#include "device/cuda/shared_memory.h"
#include "device/cuda/tensor_map.h"
#include "ops/linear/cuda_kernels.h"
#include "ops/linear/cuda_tiles.cuh"
#include "ops/linear/widened_rows.cuh"
#include "ops/wgmma.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kBlock = 128;     // of k that one scale holds for, and of a stage
constexpr int kCluster = 2;     // CTAs
constexpr int kScaleSlots = 8;  // blocks of scales that are kept
constexpr int kScalesAhead = 4;

template <int kConsumers, int kTokens>
struct Shape {
  static constexpr int kRows = 64 * kConsumers;  // of the weights
  // Many sums take more than an equal share of the registers: a whole warpgroup then brings, and cedes its
  // own.
  static constexpr bool kUneven = kConsumers * kTokens > 128;
  static constexpr int kThreads = 128 * kConsumers + (kUneven ? 128 : 32);
  static constexpr int kResident = kConsumers > 1 ? 1 : 2;  // CTAs a multiprocessor, by their registers
  static constexpr int kWeightBytes = kRows * kBlock;
  static constexpr int kHalfBytes = kTokens * 128;  // 64 of k of the tokens, in the swizzle that wgmma reads
  static constexpr int kSliceBytes = kHalfBytes / kCluster;
  static constexpr int kStageBytes = kWeightBytes + 2 * kHalfBytes;
  static constexpr int kStages = 220 / kResident * 1024 / kStageBytes;
  static constexpr int kBytes = kStages * kStageBytes + 1024;  // and room to align
};

template <int kConsumers, int kTokens>
__global__ void __cluster_dims__(kCluster, 1, 1)
    __launch_bounds__(Shape<kConsumers, kTokens>::kThreads, Shape<kConsumers, kTokens>::kResident)
        wgmma_fp8_kernel(const __grid_constant__ TileArgs args, const __grid_constant__ CUtensorMap x_map,
                         const __grid_constant__ CUtensorMap weight_map) {
  using S = Shape<kConsumers, kTokens>;
  extern __shared__ uint8_t shared_bytes[];
  __shared__ uint64_t full[S::kStages], empty[S::kStages];
  __shared__ __align__(8) float scale_slots[4 * kConsumers][kScaleSlots][2];
  uint8_t* stages = shared_bytes + (1024 - shared_address(shared_bytes) % 1024) % 1024;

  const RowTile tile = row_tile_of_block(args, kTokens);
  if (tile.count <= 0) return;  // as do all CTAs of the cluster

  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    for (int s = 0; s < S::kStages; ++s) {
      barrier_init(&full[s], 1);
      barrier_init(&empty[s], 4 * kConsumers * kCluster);
    }
    barrier_init_fence();
  }
  cluster_sync();

  const int n_first = static_cast<int>(blockIdx.x) * S::kRows;
  const int blocks = (args.k + kBlock - 1) / kBlock;
  if (thread >= kConsumers * 128) {
    if constexpr (S::kUneven) fewer_registers<40>();
    if (thread == kConsumers * 128) {
      const int32_t weight_row = tile.group * args.n + n_first;
      const int slice = static_cast<int>(rank_in_cluster());
      const auto bring_weights = [&](int block) {
        const int s = block % S::kStages;
        barrier_expect(&full[s], S::kStageBytes);
        copy_tile(stages + s * S::kStageBytes, &weight_map, &full[s], block * kBlock / 2, weight_row);
      };
      // The weights are nobody's output: they come while the kernel before this one still runs.
      for (int block = 0; block < S::kStages && block < blocks; ++block) bring_weights(block);
      device::cuda::let_next_start();
      device::cuda::wait_for_previous();
      for (int block = 0; block < blocks; ++block) {
        const int s = block % S::kStages;
        if (block >= S::kStages) {
          barrier_wait(&empty[s], static_cast<uint32_t>(block / S::kStages - 1) & 1U);
          bring_weights(block);
        }
        uint8_t* x = stages + s * S::kStageBytes + S::kWeightBytes + slice * S::kSliceBytes;
        for (int half = 0; half < 2; ++half) {
          copy_tile_to_cluster(x + half * S::kHalfBytes, &x_map, &full[s], block * kBlock + half * 64,
                               tile.first + slice * (kTokens / kCluster), (1U << kCluster) - 1);
        }
      }
      wait_for_releases<S::kStages>(empty, blocks);
    }
    __syncwarp();
  } else {
    if constexpr (S::kUneven) more_registers<232>();
    const int warp = thread / 32;
    const int lane = thread % 32;
    const int scale_groups = (args.n + 7) / 8;
    const float* scales = args.scales + tile.group * args.scales_step + n_first / 8 + warp * 2;
    const auto fetch_scales = [&](int block) {  // of the warp's 16 rows
      if (lane < 2 && block < blocks) {
        const bool inside = n_first / 8 + warp * 2 + lane < scale_groups;
        const float* from = inside ? scales + static_cast<int64_t>(block) * scale_groups + lane : args.scales;
        copy_async_4(&scale_slots[warp][block % kScaleSlots][lane], from, inside);
      }
      copy_async_commit();
    };
    for (int block = 0; block < kScalesAhead; ++block) fetch_scales(block);

    WidenedRows weights;
    const auto read_weights = [&](int block) {
      weights.read(stages + block % S::kStages * S::kStageBytes + warp * 16 * 128);
    };

    float sum[kTokens / 2];
    float part[kTokens / 2];
#pragma unroll
    for (int i = 0; i < kTokens / 2; ++i) sum[i] = part[i] = 0.0F;
    barrier_wait(&full[0], 0);
    read_weights(0);
#pragma unroll 1
    for (int block = 0; block < blocks; ++block) {
      const int s = block % S::kStages;
      const uint8_t* x = stages + s * S::kStageBytes + S::kWeightBytes;
      weights.multiply(part, x);
      fetch_scales(block + kScalesAhead);
      if (block + 1 < blocks) {
        barrier_wait(&full[(block + 1) % S::kStages], static_cast<uint32_t>((block + 1) / S::kStages) & 1U);
        read_weights(block + 1);
      }
      copy_async_wait<kScalesAhead>();
      __syncwarp();
      const float2 scale = *reinterpret_cast<const float2*>(&scale_slots[warp][block % kScaleSlots][0]);
      wgmma_wait<0>();
      if (lane < kCluster) barrier_arrive_at(&empty[s], static_cast<uint32_t>(lane));
#pragma unroll
      for (int i = 0; i < kTokens / 2; ++i) sum[i] = fmaf(i % 4 < 2 ? scale.x : scale.y, part[i], sum[i]);
    }

    device::cuda::wait_for_previous();  // y may have been its output
    store_sums(args, 0, tile, 0, n_first + warp * 16, sum);
  }
  cluster_sync();  // the others may still write here
}

template <int kConsumers, int kTokens>
void launch(device::cuda::Stream& stream, const TileCall& call) {
  using S = Shape<kConsumers, kTokens>;
  const auto& args = call.args;
  const CUtensorMap x_map = device::cuda::tile_map_16bit(stream, args.x, call.max_rows, args.k,
                                                         args.x_stride * 2, kTokens / kCluster, 64);
  // Pairs of FP8 values.
  const CUtensorMap weight_map =
      device::cuda::tile_map_16bit(stream, args.weight, int64_t{args.groups} * args.n, args.k_stride / 2,
                                   args.k_stride, S::kRows, kBlock / 2);
  const auto kernel = wgmma_fp8_kernel<kConsumers, kTokens>;
  static device::cuda::SharedMemory memory;
  memory.allow(stream, kernel, S::kBytes);
  const int64_t across = ceil_div<int64_t>(ceil_div<int64_t>(args.n, S::kRows), kCluster) * kCluster;
  const dim3 grid(static_cast<unsigned>(across), static_cast<unsigned>(call.row_tiles(kTokens)), 1);
  device::cuda::launch_early(stream, kernel, grid, dim3(S::kThreads), S::kBytes, args, x_map, weight_map);
}

}  // namespace

bool linear_wgmma_fp8(device::cuda::Stream& stream, const TileCall& call) {
  const auto& args = call.args;
  const int64_t rows = call.rows_of_a_group();
  const bool fits = call.weight_dtype == device::DType::kF8E4M3 && args.gather == nullptr &&
                    call.heads == 1 && args.k_stride % 16 == 0 &&
                    reinterpret_cast<uintptr_t>(args.weight) % 16 == 0;
  const int64_t multiprocessors = stream.gpu().multiprocessors;
  const auto tiles = [&](int64_t height, int64_t tokens) {
    return ceil_div<int64_t>(args.n, height) * call.row_tiles(tokens);
  };
  // Long sums, and about as many stripes as multiprocessors.
  const bool turns = args.offsets == nullptr && rows > 16 && rows <= 64 && args.k >= 8192 &&
                     tiles(64, 64) * 4 >= 3 * multiprocessors && tiles(64, 64) <= 2 * multiprocessors;
  if (!fits || (rows <= 32 && !turns)) return false;
  if (turns) {
    linear_wgmma_fp8_turns(stream, call);
    return true;
  }
  if (rows > 64 && tiles(128, 128) >= multiprocessors) {
    launch<2, 128>(stream, call);
  } else if (tiles(128, 64) >= multiprocessors) {
    launch<2, 64>(stream, call);
  } else {
    launch<1, 64>(stream, call);
  }
  stream.launched("linear (wgmma, fp8)");
  return true;
}

}  // namespace fathom::ops::cuda

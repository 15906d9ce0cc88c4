// FP8 weights and 9 to 128 rows on Hopper. Widening weights keeps a warp busier than its products do, and one
// warp on a scheduler waits for its own instructions most of the time; so two warpgroups share the same 64
// rows of weights and take turns of 128 of k. After each pair of turns they exchange half of what they have,
// and each adds up half of the tokens, both turns in order. Else as wgmma_fp8_sm90.cu, with the same bits.
#include "device/cuda/shared_memory.h"
#include "device/cuda/tensor_map.h"
#include "ops/attention/hopper.cuh"
#include "ops/linear/cuda_kernels.h"
#include "ops/linear/cuda_tiles.cuh"
#include "ops/linear/widened_rows.cuh"
#include "ops/wgmma.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kBlock = 128;     // of k that one scale holds for, and of a stage
constexpr int kCluster = 2;     // CTAs
constexpr int kRows = 64;       // of the weights
constexpr int kTurns = 2;       // warpgroups
constexpr int kScaleSlots = 4;  // pairs of blocks whose scales are kept
constexpr int kScalesAhead = 2;
constexpr int kThreads = 128 * kTurns + 32;

template <int kTokens>
struct Shape {
  static constexpr int kWeightBytes = kRows * kBlock;
  static constexpr int kHalfBytes = kTokens * 128;  // 64 of k of the tokens, in the swizzle that wgmma reads
  static constexpr int kSliceBytes = kHalfBytes / kCluster;
  static constexpr int kStageBytes = kWeightBytes + 2 * kHalfBytes;
  static constexpr int kExchangeBytes = 2 * kTurns * 128 * (kTokens / 4) * 4;  // two pairs
  static constexpr int kStages = (220 * 1024 - kExchangeBytes) / kStageBytes;
  static constexpr int kBytes = kStages * kStageBytes + kExchangeBytes + 1024;  // and room to align
};

template <int kTokens>
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads, 1)
    wgmma_fp8_turns_kernel(const __grid_constant__ TileArgs args, const __grid_constant__ CUtensorMap x_map,
                           const __grid_constant__ CUtensorMap weight_map) {
  using S = Shape<kTokens>;
  constexpr int kHalf = kTokens / 4;  // a thread's sums of half of the tokens
  extern __shared__ uint8_t shared_bytes[];
  __shared__ uint64_t full[S::kStages], empty[S::kStages];
  __shared__ __align__(8) float scale_slots[4 * kTurns][kScaleSlots][kTurns][2];
  uint8_t* stages = shared_bytes + (1024 - shared_address(shared_bytes) % 1024) % 1024;
  auto* exchange = reinterpret_cast<float4*>(stages + S::kStages * S::kStageBytes);

  const RowTile tile = row_tile_of_block(args, kTokens);
  if (tile.count <= 0) return;  // as do all CTAs of the cluster

  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    for (int s = 0; s < S::kStages; ++s) {
      barrier_init(&full[s], 1);
      barrier_init(&empty[s], 4 * kCluster);
    }
    barrier_init_fence();
  }
  cluster_sync();

  const int n_first = static_cast<int>(blockIdx.x) * kRows;
  const int blocks = (args.k + kBlock - 1) / kBlock;
  if (thread >= kTurns * 128) {
    if (thread == kTurns * 128) {
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
    const int turn = thread / 128;
    const int warp = thread % 128 / 32;
    const int lane = thread % 32;
    const int scale_groups = (args.n + 7) / 8;
    const float* scales = args.scales + tile.group * args.scales_step + n_first / 8 + warp * 2;
    const auto fetch_scales = [&](int pair) {  // of the warp's 16 rows, both turns
      const int block = pair * kTurns + lane / 2;
      if (lane < 2 * kTurns && block < blocks) {
        const bool inside = n_first / 8 + warp * 2 + lane % 2 < scale_groups;
        const float* from =
            inside ? scales + static_cast<int64_t>(block) * scale_groups + lane % 2 : args.scales;
        copy_async_4(&scale_slots[thread / 32][pair % kScaleSlots][lane / 2][lane % 2], from, inside);
      }
      copy_async_commit();
    };
    for (int pair = 0; pair < kScalesAhead; ++pair) fetch_scales(pair);

    float sum[kHalf];
    float part[2 * kHalf];
#pragma unroll
    for (int i = 0; i < kHalf; ++i) sum[i] = 0.0F;
#pragma unroll
    for (int i = 0; i < 2 * kHalf; ++i) part[i] = 0.0F;
    const int pairs = (blocks + kTurns - 1) / kTurns;
#pragma unroll 1
    for (int pair = 0; pair < pairs; ++pair) {
      const int block = pair * kTurns + turn;
      if (block < blocks) {
        const int s = block % S::kStages;
        barrier_wait(&full[s], static_cast<uint32_t>(block / S::kStages) & 1U);
        WidenedRows weights;
        weights.read(stages + s * S::kStageBytes + warp * 16 * 128);
        const uint8_t* x = stages + s * S::kStageBytes + S::kWeightBytes;
        weights.multiply(part, x);
      }
      fetch_scales(pair + kScalesAhead);
      copy_async_wait<kScalesAhead>();
      __syncwarp();
      const float2 first = *reinterpret_cast<const float2*>(scale_slots[thread / 32][pair % kScaleSlots][0]);
      const float2 second = *reinterpret_cast<const float2*>(scale_slots[thread / 32][pair % kScaleSlots][1]);
      wgmma_wait<0>();
      settle(part);
      if (block < blocks && lane < kCluster) {
        barrier_arrive_at(&empty[block % S::kStages], static_cast<uint32_t>(lane));
      }
      // To the other warpgroup the half that it adds up.
      float4* mine = exchange + (pair % 2 * kTurns + turn) * (kHalf / 4) * 128 + thread % 128;
      const float4* theirs = exchange + (pair % 2 * kTurns + (turn ^ 1)) * (kHalf / 4) * 128 + thread % 128;
#pragma unroll
      for (int i = 0; i < kHalf; i += 4) {
        mine[i / 4 * 128] = turn == 0 ? make_float4(part[kHalf + i], part[kHalf + i + 1], part[kHalf + i + 2],
                                                    part[kHalf + i + 3])
                                      : make_float4(part[i], part[i + 1], part[i + 2], part[i + 3]);
      }
      named_barrier_sync(1, 128 * kTurns);
      const bool both = pair * kTurns + 1 < blocks;
#pragma unroll
      for (int i = 0; i < kHalf; i += 4) {
        const float4 other = theirs[i / 4 * 128];
        const float got[4] = {other.x, other.y, other.z, other.w};
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float own = turn == 0 ? part[i + j] : part[kHalf + i + j];
          const float a = turn == 0 ? own : got[j];
          const float b = turn == 0 ? got[j] : own;
          sum[i + j] = fmaf(j < 2 ? first.x : first.y, a, sum[i + j]);
          if (both) sum[i + j] = fmaf(j < 2 ? second.x : second.y, b, sum[i + j]);
        }
      }
    }

    device::cuda::wait_for_previous();  // y may have been its output
    store_sums(args, 0, tile, turn * (kTokens / 2), n_first + warp * 16, sum);
  }
  cluster_sync();  // the others may still write here
}

template <int kTokens>
void launch(device::cuda::Stream& stream, const TileCall& call) {
  using S = Shape<kTokens>;
  const auto& args = call.args;
  const CUtensorMap x_map = device::cuda::tile_map_16bit(stream, args.x, call.max_rows, args.k,
                                                         args.x_stride * 2, kTokens / kCluster, 64);
  // Pairs of bytes.
  const CUtensorMap weight_map =
      device::cuda::tile_map_16bit(stream, args.weight, int64_t{args.groups} * args.n, args.k_stride / 2,
                                   args.k_stride, kRows, kBlock / 2);
  const auto kernel = wgmma_fp8_turns_kernel<kTokens>;
  static device::cuda::SharedMemory memory;
  memory.allow(stream, kernel, S::kBytes);
  const int64_t across = ceil_div<int64_t>(ceil_div<int64_t>(args.n, kRows), kCluster) * kCluster;
  const dim3 grid(static_cast<unsigned>(across), static_cast<unsigned>(call.row_tiles(kTokens)), 1);
  device::cuda::launch_early(stream, kernel, grid, dim3(kThreads), S::kBytes, args, x_map, weight_map);
}

}  // namespace

void linear_wgmma_fp8_turns(device::cuda::Stream& stream, const TileCall& call) {
  call.rows_of_a_group() <= 32 ? launch<32>(stream, call) : launch<64>(stream, call);
  stream.launched("linear (wgmma, fp8)");
}

}  // namespace fathom::ops::cuda

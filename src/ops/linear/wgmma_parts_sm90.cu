// BF16 parted weights (`Weight::parted`) and more than 16 rows on Hopper. Their sums are chains over
// 512 of k, which do not wait for each other: the CTAs of a cluster have different ones, for the same 64
// tokens and 64 of the weight's rows, and leave them in shared memory, from where each adds up some tokens'
// in their order. The bits are those of mma_parts.cu.
#include "device/cuda/shared_memory.h"
#include "device/cuda/tensor_map.h"
#include "ops/linear/cuda_kernels.h"
#include "ops/linear/cuda_tiles.cuh"
#include "ops/wgmma.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kTokens = 64;
constexpr int kRows = 64;   // of the weight
constexpr int kDepth = 64;  // of k a stage: 128 bytes
constexpr int kThreads = 128 + 32;
constexpr int kTileBytes = 64 * kDepth * 2;  // of tokens, and of weights
constexpr int kStageBytes = 2 * kTileBytes;
constexpr int kMostEach = 2;  // parts of a CTA
constexpr int kMostCluster = 8;
constexpr int64_t kFewRows = 1024;  // of a weight
// Values from line to line of a part's sums: eight banks on, so that lanes meet no bank twice.
constexpr int kPitch = kRows + 8;
constexpr int kPartBytes = kTokens * kPitch * 4;

// kLong: a CTA has a multiprocessor to itself, and most of its operands are under way at once.
template <int kEach, bool kLong>
struct Shape {
  static constexpr int kStages = kLong ? 8 : 4;
  static constexpr int kBytes = kStages * kStageBytes + kEach * kPartBytes + 1024;  // and room to align
};

__device__ float4 load_of_cluster(uint32_t address) {
  float4 v;
  asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "r"(address)
               : "memory");
  return v;
}

// Four neighbours of a line.
__device__ void store_four(const TileArgs& args, int line, int column, const float4& values) {
  const int64_t at = line * args.y_stride + column;
  const bool whole = column + 4 <= args.n && !args.accumulate && args.y_stride % 4 == 0;
  if (whole && args.y_is_f32 && reinterpret_cast<uintptr_t>(args.y) % 16 == 0) {
    *reinterpret_cast<float4*>(static_cast<float*>(args.y) + at) = values;
  } else if (whole && !args.y_is_f32 && reinterpret_cast<uintptr_t>(args.y) % 8 == 0) {
    *reinterpret_cast<uint2*>(static_cast<__nv_bfloat16*>(args.y) + at) =
        make_uint2(pack_outputs(values.x, values.y), pack_outputs(values.z, values.w));
  } else {
    const float each[4] = {values.x, values.y, values.z, values.w};
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      if (column + c < args.n) store_output(args, 0, line, column + c, each[c]);
    }
  }
}

template <int kCluster, int kEach, bool kLong>
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads)
    wgmma_parts_kernel(const __grid_constant__ TileArgs args, const __grid_constant__ CUtensorMap x_map,
                       const __grid_constant__ CUtensorMap weight_map) {
  constexpr int kStages = Shape<kEach, kLong>::kStages;
  extern __shared__ uint8_t shared_bytes[];
  __shared__ uint64_t full[kStages], empty[kStages];
  uint8_t* stages = shared_bytes + (1024 - shared_address(shared_bytes) % 1024) % 1024;
  auto* parts = reinterpret_cast<float*>(stages + kStages * kStageBytes);  // [kEach][kTokens][kPitch]

  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    for (int s = 0; s < kStages; ++s) {
      barrier_init(&full[s], 1);
      barrier_init(&empty[s], 1);
    }
    barrier_init_fence();
  }
  __syncthreads();

  const auto rank = static_cast<int>(rank_in_cluster());
  const int n_first = static_cast<int>(blockIdx.x) / kCluster * kRows;
  const int first_token = static_cast<int>(blockIdx.y) * kTokens;
  const int steps_of_part = kSumPart / kDepth;
  const int all_steps = args.k / kDepth;
  const int first_step = rank * kEach * steps_of_part;
  const int steps = max(min(all_steps - first_step, kEach * steps_of_part), 0);
  if (thread == 128) {
    const auto bring_weights = [&](int step) {
      const int s = step % kStages;
      barrier_expect(&full[s], kStageBytes);
      copy_tile(stages + s * kStageBytes + kTileBytes, &weight_map, &full[s], (first_step + step) * kDepth,
                n_first);
    };
    // The weights are nobody's output: they come while the kernel before this one still runs.
    for (int step = 0; step < kStages && step < steps; ++step) bring_weights(step);
    device::cuda::let_next_start();
    device::cuda::wait_for_previous();
    for (int step = 0; step < steps; ++step) {
      const int s = step % kStages;
      if (step >= kStages) {
        barrier_wait(&empty[s], static_cast<uint32_t>(step / kStages - 1) & 1U);
        bring_weights(step);
      }
      copy_tile(stages + s * kStageBytes, &x_map, &full[s], (first_step + step) * kDepth, first_token);
    }
  } else if (thread < 128) {
    const int warp = thread / 32, lane = thread % 32;
    float sum[kRows / 2];  // of a part, set by its first product
    for (int first = 0, part = 0; first < steps; first += steps_of_part, ++part) {
      const int end = min(first + steps_of_part, steps);
      for (int step = first; step < end; ++step) {
        const int s = step % kStages;
        barrier_wait(&full[s], static_cast<uint32_t>(step / kStages) & 1U);
        const uint64_t x = wgmma_tile(stages + s * kStageBytes);
        const uint64_t w = wgmma_tile(stages + s * kStageBytes + kTileBytes);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < kDepth / 16; ++k) wgmma_shared(sum, x + 2 * k, w + 2 * k, step > first || k > 0);
        wgmma_commit();
        wgmma_wait<1>();
        if (step > first && thread == 0) barrier_arrive(&empty[(step - 1) % kStages]);
      }
      wgmma_wait<0>();
      if (thread == 0) barrier_arrive(&empty[(end - 1) % kStages]);
      float* line = parts + (part * kTokens + warp * 16 + lane / 4) * kPitch + lane % 4 * 2;
#pragma unroll
      for (int j = 0; j < kRows / 8; ++j) {
        *reinterpret_cast<float2*>(line + j * 8) = make_float2(sum[4 * j], sum[4 * j + 1]);
        *reinterpret_cast<float2*>(line + 8 * kPitch + j * 8) = make_float2(sum[4 * j + 2], sum[4 * j + 3]);
      }
    }
  }
  __syncwarp();
  cluster_sync_memory();

  constexpr int kLines = kTokens / kCluster;  // that this CTA adds up
  constexpr int kFours = kRows / 4;
  const int count = (all_steps + steps_of_part - 1) / steps_of_part;
  device::cuda::wait_for_previous();  // y may have been its output
  for (int i = thread; i < kLines * kFours; i += kThreads) {
    const int line = rank * kLines + i / kFours, column = i % kFours * 4;
    float4 of_part[kCluster * kEach];
#pragma unroll
    for (int p = 0; p < kCluster * kEach; ++p) {
      if (p < count) {
        of_part[p] = load_of_cluster(cluster_address(parts + (p % kEach * kTokens + line) * kPitch + column,
                                                     static_cast<uint32_t>(p / kEach)));
      }
    }
    float4 total = of_part[0];
#pragma unroll
    for (int p = 1; p < kCluster * kEach; ++p) {
      if (p < count) {
        total.x += of_part[p].x;
        total.y += of_part[p].y;
        total.z += of_part[p].z;
        total.w += of_part[p].w;
      }
    }
    if (first_token + line >= args.rows) continue;
    store_four(args, first_token + line, n_first + column, total);
  }
  // Nobody leaves while others read here.
  cluster_sync_memory();
}

template <int kCluster, int kEach, bool kLong>
void launch(device::cuda::Stream& stream, const TileCall& call) {
  const auto& args = call.args;
  const CUtensorMap x_map =
      device::cuda::tile_map_16bit(stream, args.x, call.max_rows, args.k, args.x_stride * 2, kTokens, kDepth);
  const CUtensorMap weight_map =
      device::cuda::tile_map_16bit(stream, args.weight, args.n, args.k, args.k_stride * 2, kRows, kDepth);
  const auto kernel = wgmma_parts_kernel<kCluster, kEach, kLong>;
  static device::cuda::SharedMemory memory;
  constexpr int kBytes = Shape<kEach, kLong>::kBytes;
  memory.allow(stream, kernel, kBytes);
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(args.n, kRows) * kCluster),
                  static_cast<unsigned>(call.row_tiles(kTokens)));
  device::cuda::launch_early(stream, kernel, grid, dim3(kThreads), kBytes, args, x_map, weight_map);
}

template <int kCluster, int kEach>
void launch(device::cuda::Stream& stream, const TileCall& call) {
  const int64_t ctas = ceil_div<int64_t>(call.args.n, kRows) * kCluster * call.row_tiles(kTokens);
  // Of an H100's multiprocessors, clusters of eight find room on 120.
  ctas <= 120 ? launch<kCluster, kEach, true>(stream, call) : launch<kCluster, kEach, false>(stream, call);
}

}  // namespace

bool linear_wgmma_parts(device::cuda::Stream& stream, const TileCall& call) {
  const auto& args = call.args;
  const int64_t parts = ceil_div<int64_t>(args.k, kSumPart);
  // Weights of more rows fill the GPU without clusters.
  if (args.n > kFewRows && call.max_rows > 128) return false;
  const bool fits = args.part < args.k && args.offsets == nullptr && !args.swiglu && args.k % kDepth == 0 &&
                    args.k_stride == args.k && reinterpret_cast<uintptr_t>(args.weight) % 16 == 0;
  if (!fits || call.max_rows <= 16 || call.max_rows > 1024 || parts > kMostCluster * kMostEach) return false;
  if (parts <= 4) {
    launch<4, 1>(stream, call);
  } else if (parts <= 8) {
    launch<8, 1>(stream, call);
  } else {
    launch<8, 2>(stream, call);
  }
  stream.launched("linear (wgmma, parts)");
  return true;
}

}  // namespace fathom::ops::cuda

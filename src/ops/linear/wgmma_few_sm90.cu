// BF16 and some rows (17 to 128) on Hopper: a CTA has 64 rows of weights and all tokens of the tile. One warp
// brings both with the bulk copy engine through as long a ring as fits, so that memory has much to do; a
// warpgroup multiplies. The CTAs of a cluster stand side by side over the weights' rows and share their
// tokens: each brings a slice to all. Each output is one chain of k16 products in the order of k, as in
// mma.cu, and so are the bits.
#include "device/cuda/shared_memory.h"
#include "device/cuda/tensor_map.h"
#include "ops/linear/cuda_kernels.h"
#include "ops/linear/cuda_tiles.cuh"
#include "ops/wgmma.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kRows = 64;   // of the weights
constexpr int kDepth = 64;  // of k a stage: 128 bytes
constexpr int kThreads = 128 + 32;

// kResident CTAs share a multiprocessor: one where there are few, or two, whose ends hide under each other.
template <int kTokens, int kResident, int kCluster>
struct Shape {
  static constexpr int kWeightBytes = kRows * kDepth * 2;
  static constexpr int kTokenBytes = kTokens * kDepth * 2;
  static constexpr int kSliceBytes = kTokenBytes / kCluster;
  static constexpr int kStageBytes = kWeightBytes + kTokenBytes;
  static constexpr int kStages = 220 / kResident * 1024 / kStageBytes;
  static constexpr int kBytes = kStages * kStageBytes + 1024;  // and room to align
};

template <int kTokens, int kResident, int kCluster>
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads, kResident)
    wgmma_few_kernel(const __grid_constant__ TileArgs args, const __grid_constant__ CUtensorMap x_map,
                     const __grid_constant__ CUtensorMap weight_map) {
  using S = Shape<kTokens, kResident, kCluster>;
  extern __shared__ uint8_t shared_bytes[];
  __shared__ uint64_t full[S::kStages], empty[S::kStages];
  uint8_t* stages = shared_bytes + (1024 - shared_address(shared_bytes) % 1024) % 1024;

  const int head = static_cast<int>(blockIdx.z);
  const int first_row = static_cast<int>(blockIdx.y) * kTokens;
  const int count = min(kTokens, args.rows - first_row);
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
  const int steps = args.k / kDepth;
  if (thread >= 128) {
    if (thread == 128) {
      const int32_t weight_row = head * args.n + n_first;
      const auto x_column = static_cast<int32_t>(head * args.x_step);
      const int slice = static_cast<int>(rank_in_cluster());
      const auto bring_weights = [&](int step) {
        const int s = step % S::kStages;
        barrier_expect(&full[s], S::kStageBytes);
        copy_tile(stages + s * S::kStageBytes, &weight_map, &full[s], step * kDepth, weight_row);
      };
      // The weights are nobody's output: they come while the kernel before this one still runs.
      for (int step = 0; step < S::kStages && step < steps; ++step) bring_weights(step);
      device::cuda::let_next_start();
      device::cuda::wait_for_previous();
      for (int step = 0; step < steps; ++step) {
        const int s = step % S::kStages;
        if (step >= S::kStages) {
          barrier_wait(&empty[s], static_cast<uint32_t>(step / S::kStages - 1) & 1U);
          bring_weights(step);
        }
        uint8_t* x = stages + s * S::kStageBytes + S::kWeightBytes + slice * S::kSliceBytes;
        copy_tile_to_cluster(x, &x_map, &full[s], x_column + step * kDepth,
                             first_row + slice * (kTokens / kCluster), (1U << kCluster) - 1);
      }
      wait_for_releases<S::kStages>(empty, steps - 1);  // the last one is not released
    }
    __syncwarp();
  } else {
    const int lane = thread % 32;
    const auto release = [&](int step) {
      if (lane < kCluster) barrier_arrive_at(&empty[step % S::kStages], static_cast<uint32_t>(lane));
    };
    float sum[kTokens / 2], total[kTokens / 2];  // of a part, set by its first product; of all
    for (int first = 0, end = 0; first < steps; first = end) {
      end = min(first + (args.part + kDepth - 1) / kDepth, steps);
      for (int step = first; step < end; ++step) {
        const int s = step % S::kStages;
        barrier_wait(&full[s], static_cast<uint32_t>(step / S::kStages) & 1U);
        const uint64_t w = wgmma_tile(stages + s * S::kStageBytes);
        const uint64_t x = wgmma_tile(stages + s * S::kStageBytes + S::kWeightBytes);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < kDepth / 16; ++k) wgmma_shared(sum, w + 2 * k, x + 2 * k, step > first || k > 0);
        wgmma_commit();
        wgmma_wait<1>();
        if (step > first) release(step - 1);
      }
      wgmma_wait<0>();
      if (end < steps) release(end - 1);
#pragma unroll
      for (int i = 0; i < kTokens / 2; ++i) total[i] = first == 0 ? sum[i] : total[i] + sum[i];
    }

    device::cuda::wait_for_previous();  // y may have been its output
    store_sums(args, head * args.y_step, {head, first_row, count}, 0, n_first + thread / 32 * 16, total);
  }
  cluster_sync();  // the others may still write here
}

template <int kTokens, int kResident, int kCluster>
void launch(device::cuda::Stream& stream, const TileCall& call) {
  using S = Shape<kTokens, kResident, kCluster>;
  const auto& args = call.args;
  const int64_t columns = (call.heads - 1) * args.x_step + args.k;
  const CUtensorMap x_map = device::cuda::tile_map_16bit(stream, args.x, call.max_rows, columns,
                                                         args.x_stride * 2, kTokens / kCluster, kDepth);
  const CUtensorMap weight_map = device::cuda::tile_map_16bit(stream, args.weight, call.heads * args.n,
                                                              args.k, args.k_stride * 2, kRows, kDepth);
  const auto kernel = wgmma_few_kernel<kTokens, kResident, kCluster>;
  static device::cuda::SharedMemory memory;
  memory.allow(stream, kernel, S::kBytes);
  const int64_t across = ceil_div<int64_t>(ceil_div<int64_t>(args.n, kRows), kCluster) * kCluster;
  const dim3 grid(static_cast<unsigned>(across), static_cast<unsigned>(call.row_tiles(kTokens)),
                  static_cast<unsigned>(call.heads));
  device::cuda::launch_early(stream, kernel, grid, dim3(kThreads), S::kBytes, args, x_map, weight_map);
}

template <int kTokens>
void launch(device::cuda::Stream& stream, const TileCall& call) {
  const int64_t tiles = ceil_div<int64_t>(call.args.n, kRows) * call.heads * call.row_tiles(kTokens);
  tiles > stream.gpu().multiprocessors ? launch<kTokens, 2, 2>(stream, call)
                                       : launch<kTokens, 1, 4>(stream, call);
}

}  // namespace

bool linear_wgmma_few(device::cuda::Stream& stream, const TileCall& call) {
  const auto& args = call.args;
  const bool fits = call.weight_dtype == device::DType::kBF16 && args.offsets == nullptr &&
                    args.k % kDepth == 0 && args.k_stride == args.k &&
                    reinterpret_cast<uintptr_t>(args.weight) % 16 == 0;
  if (!fits || call.max_rows <= 16 || call.max_rows > 128) return false;
  // What a multiprocessor can take in bounds these: the narrowest tiles that it takes one of.
  const int64_t stripes = ceil_div<int64_t>(args.n, kRows) * call.heads;
  const auto fill = [&](int64_t tokens) {
    return stripes * call.row_tiles(tokens) <= stream.gpu().multiprocessors;
  };
  if (call.max_rows <= 32 || fill(32)) {
    launch<32>(stream, call);
  } else if (call.max_rows <= 64 || fill(64)) {
    launch<64>(stream, call);
  } else {
    launch<128>(stream, call);
  }
  stream.launched("linear (wgmma)");
  return true;
}

}  // namespace fathom::ops::cuda

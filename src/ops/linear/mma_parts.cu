// BF16 and few rows (up to 16) of a weight whose sums are made of parts (Weight::parted), on any GPU from
// sm_80: as mma.cu, but the four warps of a block take four parts of the same 16 rows of weights at once,
// where one chain of products after another would take longer than reading the weights. Parts are added up in
// order.
#include "device/cuda/shared_memory.h"
#include "ops/linear/cuda_kernels.h"
#include "ops/linear/cuda_tiles.cuh"
#include "ops/mma.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * 32;
constexpr int kRows = 16;                     // of the weights
constexpr int kDepth = 64;                    // of each warp's part a stage
constexpr int kSteps = kSumPart / kDepth;     // of a round of four parts
constexpr int kChunks = kWarps * kDepth / 8;  // of 16 bytes, of a row of a stage
// Bytes from row to row: an odd number of 16-byte lines, so that ldmatrix meets no bank twice.
constexpr int kPitch = kChunks * 16 + 16;

template <int kTokens>
struct Shape {
  static constexpr int kStageBytes = (kRows + kTokens) * kPitch;
  static constexpr int kStages = 90 * 1024 / kStageBytes;  // two blocks on a multiprocessor
  static constexpr int kBytes = kStages * kStageBytes;
};

template <int kTokens>
__global__ void __launch_bounds__(kThreads) mma_parts_kernel(const __grid_constant__ TileArgs args) {
  using S = Shape<kTokens>;
  constexpr int kTiles = kTokens / 8;
  extern __shared__ __align__(16) uint8_t stages[];
  __shared__ float parts[2][kWarps][kTiles * 4][32];

  const RowTile tile = row_tile_of_block(args, kTokens);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int n_first = static_cast<int>(blockIdx.x) * kRows;
  const auto* x = static_cast<const __nv_bfloat16*>(args.x);
  const auto* weight = static_cast<const __nv_bfloat16*>(args.weight);

  // A thread brings one chunk of every fourth line.
  const int chunk = thread % kChunks;
  const auto k_of = [&](int step) {
    const int part = step / kSteps * kWarps + chunk / (kDepth / 8);
    return part * kSumPart + step % kSteps * kDepth + chunk % (kDepth / 8) * 8;
  };
  const auto load_weights = [&](int stage, int step) {
    const int k = k_of(step);
#pragma unroll
    for (int line = thread / kChunks; line < kRows; line += kThreads / kChunks) {
      const bool inside = n_first + line < args.n && k < args.k_stride;
      const auto* from = weight + static_cast<int64_t>(n_first + line) * args.k_stride + k;
      copy_async_16(stages + stage * S::kStageBytes + line * kPitch + chunk * 16, inside ? from : weight,
                    inside);
    }
  };
  // Lines past the tile's rows keep what they hold: nobody stores their products.
  const auto load_tokens = [&](int stage, int step) {
    const int k = k_of(step);
    const bool inside = k < args.k;
    for (int line = thread / kChunks; line < tile.count; line += kThreads / kChunks) {
      copy_async_16(stages + stage * S::kStageBytes + (kRows + line) * kPitch + chunk * 16,
                    x + (tile.first + line) * args.x_stride + (inside ? k : 0), inside);
    }
  };

  const int steps = (args.k + kWarps * kSumPart - 1) / (kWarps * kSumPart) * kSteps;
  // The weights are nobody's output: they come while the kernel before this one still runs.
#pragma unroll 1
  for (int s = 0; s < S::kStages - 1 && s < steps; ++s) load_weights(s, s);
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();
#pragma unroll 1
  for (int s = 0; s < S::kStages - 1; ++s) {
    if (s < steps) load_tokens(s, s);
    copy_async_commit();
  }
  float sum[kTiles][4] = {}, total[kTiles][4] = {};
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    copy_async_wait<S::kStages - 2>();
    __syncthreads();
    const int ahead = step + S::kStages - 1;
    if (ahead < steps) {
      load_weights(ahead % S::kStages, ahead);
      load_tokens(ahead % S::kStages, ahead);
    }
    copy_async_commit();

    const uint8_t* w = stages + step % S::kStages * S::kStageBytes + warp * kDepth * 2;
    const uint8_t* tokens = w + kRows * kPitch;
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      uint32_t a[4];
      load_matrix_x4(a, w + lane % 16 * kPitch + k * 2 + lane / 16 * 16);
      if constexpr (kTiles == 1) {
        uint32_t b[2];
        load_matrix_x2(b, tokens + lane % 8 * kPitch + k * 2 + lane / 8 % 2 * 16);
        mma_bf16(sum[0], a, b);
      } else {
        uint32_t b[4];
        load_matrix_x4(b, tokens + (lane / 16 * 8 + lane % 8) * kPitch + k * 2 + lane / 8 % 2 * 16);
        mma_bf16(sum[0], a, b);
        mma_bf16(sum[1], a, b + 2);
      }
    }
    if (step % kSteps != kSteps - 1) continue;
    const int round = step / kSteps;
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        parts[round % 2][warp][t * 4 + i][lane] = sum[t][i];
        sum[t][i] = 0.0F;
      }
    }
    __syncthreads();
    if (warp != 0) continue;
    for (int p = 0; p < kWarps && (round * kWarps + p) * kSumPart < args.k; ++p) {
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float part = parts[round % 2][p][t * 4 + i][lane];
          total[t][i] = round + p == 0 ? part : total[t][i] + part;
        }
      }
    }
  }
  if (warp != 0) return;
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int line = t * 8 + lane % 4 * 2 + i;
      if (line < tile.count)
        store_outputs(args, 0, tile.first + line, n_first + lane / 4, total[t][i], total[t][i + 2]);
    }
  }
}

template <int kTokens>
void launch(device::cuda::Stream& stream, const TileCall& call) {
  using S = Shape<kTokens>;
  const auto kernel = mma_parts_kernel<kTokens>;
  static device::cuda::SharedMemory memory;
  memory.allow(stream, kernel, S::kBytes);
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(call.args.n, kRows)),
                  static_cast<unsigned>(call.row_tiles(kTokens)));
  device::cuda::launch_early(stream, kernel, grid, dim3(kThreads), S::kBytes, call.args);
}

}  // namespace

void linear_mma_parts(device::cuda::Stream& stream, const TileCall& call) {
  call.max_rows <= 8 ? launch<8>(stream, call) : launch<16>(stream, call);
  stream.launched("linear (mma, parts)");
}

}  // namespace fathom::ops::cuda

// BF16 activations and weights on any GPU from sm_80: warp-level matrix instructions with the weights as the
// 16-row operand and tokens as the 8-column one, so that few tokens waste little. cp.async keeps several
// stages of weights in flight. Each output is one chain of k16 products in the order of k, or of parts of k
// (Weight::parted).
#include "device/cuda/shared_memory.h"
#include "ops/linear/cuda_kernels.h"
#include "ops/linear/cuda_tiles.cuh"
#include "ops/mma.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kThreads = 128;

template <int kStripes, int kTokens>
struct Shape {
  // Of k a stage. Few tokens wait for barriers rather than for products: they take long stages.
  static constexpr int kDepth = kTokens > 16 || kStripes == 4 ? 128 : 256;
  // Bytes from row to row: an odd number of 16-byte lines, so that ldmatrix meets no bank twice.
  static constexpr int kPitch = kDepth * 2 + 16;
  static constexpr int kWeightBytes = kStripes * 16 * kPitch;
  static constexpr int kStageBytes = kWeightBytes + kTokens * kPitch;
  // About 90 KB a CTA, so that two run on a multiprocessor.
  static constexpr int kStages =
      90 * 1024 / kStageBytes < 3 ? 3 : (90 * 1024 / kStageBytes > 12 ? 12 : 90 * 1024 / kStageBytes);
  static constexpr int kBytes = kStages * kStageBytes;
};

// kStripes 16-row stripes of weights by kTokens tokens. The four warps share the tile: kStripes ways by
// stripe, the rest by tokens (a warp without tokens only loads).
template <int kStripes, int kTokens>
__global__ void __launch_bounds__(kThreads) mma_kernel(const __grid_constant__ TileArgs args) {
  using S = Shape<kStripes, kTokens>;
  constexpr int kDepth = S::kDepth;
  constexpr int kPitch = S::kPitch;
  constexpr int kSplit = 4 / kStripes;                                     // warps that share a stripe
  constexpr int kTiles = kTokens / 8 < kSplit ? 1 : kTokens / 8 / kSplit;  // token tiles of a warp
  constexpr int kChunks = kDepth / 8;                                      // 16-byte chunks of a row
  extern __shared__ __align__(16) uint8_t stages[];

  const RowTile tile = row_tile_of_block(args, kTokens);
  if (tile.count <= 0) return;

  const bool grouped = args.offsets != nullptr;
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / 32;
  const int lane = thread % 32;
  const int n_first = static_cast<int>(blockIdx.x) * kStripes * 16;
  const auto* x = static_cast<const __nv_bfloat16*>(args.x) + (grouped ? 0 : tile.group * args.x_step);
  const auto* weight = static_cast<const __nv_bfloat16*>(args.weight) + tile.group * args.weight_step;

  const auto load_weights = [&](int stage, int k_first) {
    uint8_t* base = stages + stage * S::kStageBytes;
    for (int i = thread; i < kStripes * 16 * kChunks; i += kThreads) {
      const int line = i / kChunks;
      const int chunk = i % kChunks;
      const int k = k_first + chunk * 8;
      const bool inside = n_first + line < args.n && k < args.k_stride;
      const auto* from = weight + static_cast<int64_t>(n_first + line) * args.k_stride + k;
      copy_async_16(base + line * kPitch + chunk * 16, inside ? from : weight, inside);
    }
  };
  // Lines past the tile's rows keep what they hold: nobody stores their products.
  const auto load_tokens = [&](int stage, int k_first) {
    uint8_t* base = stages + stage * S::kStageBytes + S::kWeightBytes;
    const int chunk = thread % kChunks;
    const int k = k_first + chunk * 8;
    const bool inside = k < args.k;
    for (int line = thread / kChunks; line < tile.count; line += kThreads / kChunks) {
      int64_t row = tile.first + line;
      if (args.gather != nullptr) row = args.gather[row];
      copy_async_16(base + line * kPitch + chunk * 16, x + row * args.x_stride + (inside ? k : 0), inside);
    }
  };

  const int stripe = warp % kStripes;
  const int first_token = warp / kStripes * kTiles * 8;
  const bool computes = first_token < kTokens;

  float sum[kTiles][4] = {}, total[kTiles][4] = {};
  const auto end_part = [&] {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        total[t][i] += sum[t][i];
        sum[t][i] = 0.0F;
      }
    }
  };
  int next_part = args.part;
  const int steps = (args.k + kDepth - 1) / kDepth;
  // The weights are nobody's output: they come while the kernel before this one still runs.
#pragma unroll 1
  for (int s = 0; s < S::kStages - 1 && s < steps; ++s) load_weights(s, s * kDepth);
  device::cuda::let_next_start();
  if (!grouped) device::cuda::wait_for_previous();
#pragma unroll 1
  for (int s = 0; s < S::kStages - 1; ++s) {
    if (s < steps) load_tokens(s, s * kDepth);
    copy_async_commit();
  }
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    copy_async_wait<S::kStages - 2>();
    __syncthreads();
    const int ahead = step + S::kStages - 1;
    if (ahead < steps) {
      load_weights(ahead % S::kStages, ahead * kDepth);
      load_tokens(ahead % S::kStages, ahead * kDepth);
    }
    copy_async_commit();
    if (!computes) continue;
    if (step * kDepth == next_part) {
      end_part();
      next_part += args.part;
    }

    const uint8_t* base = stages + step % S::kStages * S::kStageBytes;
    const uint8_t* w = base + stripe * 16 * kPitch;
    const uint8_t* tokens = base + S::kWeightBytes + first_token * kPitch;
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      uint32_t a[4];
      load_matrix_x4(a, w + lane % 16 * kPitch + k * 2 + lane / 16 * 16);
#pragma unroll
      for (int t = 0; t < kTiles; t += 2) {
        if constexpr (kTiles == 1) {
          uint32_t b[2];
          load_matrix_x2(b, tokens + lane % 8 * kPitch + k * 2 + lane / 8 % 2 * 16);
          mma_bf16(sum[0], a, b);
        } else {
          uint32_t b[4];
          load_matrix_x4(b, tokens + (t * 8 + lane / 16 * 8 + lane % 8) * kPitch + k * 2 + lane / 8 % 2 * 16);
          mma_bf16(sum[t], a, b);
          mma_bf16(sum[t + 1], a, b + 2);
        }
      }
    }
  }
  if (!computes) return;
  end_part();

  const int n_row = n_first + stripe * 16 + lane / 4;
  const int64_t y_base = grouped ? 0 : tile.group * args.y_step;
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int line = first_token + t * 8 + lane % 4 * 2 + i;
      if (line < tile.count)
        store_outputs(args, y_base, tile.first + line, n_row, total[t][i], total[t][i + 2]);
    }
  }
}

template <int kStripes, int kTokens>
void launch(device::cuda::Stream& stream, const TileCall& call) {
  using S = Shape<kStripes, kTokens>;
  const auto kernel = mma_kernel<kStripes, kTokens>;
  static device::cuda::SharedMemory memory;
  memory.allow(stream, kernel, S::kBytes);
  const dim3 grid(static_cast<unsigned>((call.args.n + kStripes * 16 - 1) / (kStripes * 16)),
                  static_cast<unsigned>(call.row_tiles(kTokens)), static_cast<unsigned>(call.heads));
  device::cuda::launch_early(stream, kernel, grid, dim3(kThreads), S::kBytes, call.args);
}

}  // namespace

void linear_mma(device::cuda::Stream& stream, const TileCall& call) {
  const int64_t rows = call.rows_of_a_group();
  const int64_t width = call.stripes_per_multiprocessor(stream.gpu().multiprocessors);
  // The wider the tile, the fewer times tokens are read, and the fewer tiles there are to fill the GPU.
  if (rows <= 8) {
    width >= 8   ? launch<4, 8>(stream, call)
    : width >= 4 ? launch<2, 8>(stream, call)
                 : launch<1, 8>(stream, call);
  } else if (rows <= 16) {
    width >= 8   ? launch<4, 16>(stream, call)
    : width >= 4 ? launch<2, 16>(stream, call)
                 : launch<1, 16>(stream, call);
  } else if (rows <= 32) {
    width >= 4 ? launch<4, 32>(stream, call) : launch<1, 32>(stream, call);
  } else {
    width >= 4 ? launch<4, 64>(stream, call) : launch<2, 64>(stream, call);
  }
  stream.launched("linear (mma)");
}

}  // namespace fathom::ops::cuda

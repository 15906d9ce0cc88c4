// BF16 activations on any GPU from sm_80: warp-level matrix instructions with the weights as the 16-row
// operand and tokens as the 8-column one, so that few tokens waste little. cp.async keeps several stages of
// weights in flight. Each output is one chain of k16 products in the order of k (FP8: one chain for each 128
// of k, scaled and summed in order).
#include "device/cuda/launch_kernel.h"
#include "device/cuda/shared_memory.h"
#include "ops/linear/cuda_kernels.h"
#include "ops/linear/cuda_tiles.cuh"
#include "ops/mma.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kScaleDepth = 128;  // of k that one FP8 scale holds for

template <bool kFp8, int kStripes, int kTokens>
struct Shape {
  // Of k a stage. Few tokens wait for barriers rather than for products: they take long stages.
  static constexpr int kDepth = kFp8 || kTokens > 16 ? kScaleDepth : 2 * kScaleDepth;
  // Bytes from row to row: an odd number of 16-byte lines, so that ldmatrix meets no bank twice.
  static constexpr int kPitch = kDepth * 2 + 16;
  static constexpr int kWeightPitch = kFp8 ? kDepth + 16 : kPitch;
  static constexpr int kWeightBytes = kStripes * 16 * kWeightPitch;
  static constexpr int kStageBytes = kWeightBytes + kTokens * kPitch;
  // About 90 KB a CTA, so that two run on a multiprocessor.
  static constexpr int kStages =
      90 * 1024 / kStageBytes < 3 ? 3 : (90 * 1024 / kStageBytes > 12 ? 12 : 90 * 1024 / kStageBytes);
  static constexpr int kBytes = kStages * kStageBytes;
};

// kStripes 16-row stripes of weights by kTokens tokens. The four warps share the tile: kStripes ways by
// stripe, the rest by tokens (a warp without tokens only loads).
template <bool kFp8, int kStripes, int kTokens>
__global__ void __launch_bounds__(kThreads) mma_kernel(const __grid_constant__ TileArgs args) {
  using S = Shape<kFp8, kStripes, kTokens>;
  constexpr int kDepth = S::kDepth;
  constexpr int kPitch = S::kPitch;
  constexpr int kSplit = 4 / kStripes;                                     // warps that share a stripe
  constexpr int kTiles = kTokens / 8 < kSplit ? 1 : kTokens / 8 / kSplit;  // token tiles of a warp
  extern __shared__ __align__(16) uint8_t stages[];
  __shared__ RowTile shared_tile;

  RowTile tile{static_cast<int32_t>(blockIdx.z), static_cast<int32_t>(blockIdx.y) * kTokens, 0};
  const bool grouped = args.offsets != nullptr;
  if (grouped) {
    device::cuda::wait_for_previous();
    if (threadIdx.x < 32) {
      const RowTile found = find_row_tile(args, static_cast<int32_t>(blockIdx.y), kTokens);
      if (threadIdx.x == 0) shared_tile = found;
    }
    __syncthreads();
    tile = shared_tile;
  } else {
    tile.count = min(kTokens, args.rows - tile.first);
  }
  if (tile.count <= 0) return;

  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / 32;
  const int lane = thread % 32;
  const int n_first = static_cast<int>(blockIdx.x) * kStripes * 16;
  const auto* x = static_cast<const __nv_bfloat16*>(args.x) + (grouped ? 0 : tile.group * args.x_step);
  const auto* weight =
      static_cast<const uint8_t*>(args.weight) + tile.group * args.weight_step * (kFp8 ? 1 : 2);
  const float* scales = kFp8 ? args.scales + tile.group * args.scales_step : nullptr;

  const auto load_weights = [&](int stage, int k_first) {
    uint8_t* base = stages + stage * S::kStageBytes;
    constexpr int kChunks = kFp8 ? kDepth / 16 : kDepth / 8;  // 16-byte chunks of a row
    for (int i = thread; i < kStripes * 16 * kChunks; i += kThreads) {
      const int line = i / kChunks;
      const int chunk = i % kChunks;
      const int k = k_first + chunk * (kFp8 ? 16 : 8);
      const bool inside = n_first + line < args.n && k < args.k_stride;
      const uint8_t* from =
          weight + (static_cast<int64_t>(n_first + line) * args.k_stride + k) * (kFp8 ? 1 : 2);
      copy_async_16(base + line * S::kWeightPitch + chunk * 16, inside ? from : weight, inside);
    }
  };
  const auto load_tokens = [&](int stage, int k_first) {
    uint8_t* base = stages + stage * S::kStageBytes + S::kWeightBytes;
    constexpr int kChunks = kDepth / 8;
    for (int i = thread; i < kTokens * kChunks; i += kThreads) {
      const int line = i / kChunks;
      const int chunk = i % kChunks;
      const int k = k_first + chunk * 8;
      const bool inside = line < tile.count && k < args.k;
      int64_t row = tile.first + (inside ? line : 0);
      if (args.gather != nullptr) row = args.gather[row];
      copy_async_16(base + line * kPitch + chunk * 16, x + row * args.x_stride + (inside ? k : 0), inside);
    }
  };

  const int stripe = warp % kStripes;
  const int first_token = warp / kStripes * kTiles * 8;
  const bool computes = first_token < kTokens;
  const int n_row = n_first + stripe * 16 + lane / 4;  // and n_row + 8

  float sum[kTiles][4] = {};
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
  const int scale_groups = (args.n + 7) / 8;
  float next_scale[2] = {};
  const auto fetch_scales = [&](int step) {
    if constexpr (kFp8) {
      const float* line = scales + static_cast<int64_t>(step) * scale_groups;
      const int group = (n_first + stripe * 16) / 8;
      next_scale[0] = group < scale_groups ? line[group] : 0.0F;
      next_scale[1] = group + 1 < scale_groups ? line[group + 1] : 0.0F;
    }
  };
  if (computes) fetch_scales(0);

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

    const uint8_t* base = stages + step % S::kStages * S::kStageBytes;
    const uint8_t* w = base + stripe * 16 * S::kWeightPitch;
    const uint8_t* tokens = base + S::kWeightBytes + first_token * kPitch;
    float part[kTiles][4] = {};
    float(&into)[kTiles][4] = kFp8 ? part : sum;
    const float scale[2] = {next_scale[0], next_scale[1]};
    if (kFp8 && step + 1 < steps) fetch_scales(step + 1);
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      uint32_t a[4];
      if constexpr (kFp8) {
        const uint8_t* row = w + lane / 4 * S::kWeightPitch + k + lane % 4 * 4;
        fp8x4_to_bf16x4(*reinterpret_cast<const uint32_t*>(row), a[0], a[2]);
        fp8x4_to_bf16x4(*reinterpret_cast<const uint32_t*>(row + 8 * S::kWeightPitch), a[1], a[3]);
      } else {
        load_matrix_x4(a, w + lane % 16 * S::kWeightPitch + k * 2 + lane / 16 * 16);
      }
#pragma unroll
      for (int t = 0; t < kTiles; t += 2) {
        if constexpr (kTiles == 1) {
          uint32_t b[2];
          load_matrix_x2(b, tokens + lane % 8 * kPitch + k * 2 + lane / 8 % 2 * 16);
          mma_bf16(into[0], a, b);
        } else {
          uint32_t b[4];
          load_matrix_x4(b, tokens + (t * 8 + lane / 16 * 8 + lane % 8) * kPitch + k * 2 + lane / 8 % 2 * 16);
          mma_bf16(into[t], a, b);
          mma_bf16(into[t + 1], a, b + 2);
        }
      }
    }
    if constexpr (kFp8) {
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[t][i] = fmaf(scale[i / 2], part[t][i], sum[t][i]);
      }
    }
  }
  if (!computes) return;

  const int64_t y_base = grouped ? 0 : tile.group * args.y_step;
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int line = first_token + t * 8 + lane % 4 * 2 + i;
      if (line >= tile.count) continue;
      if (args.swiglu) {
        if (n_row < args.n) {
          store_output(args, y_base, tile.first + line, n_row / 16 * 8 + n_row % 8,
                       silu(sum[t][i]) * sum[t][i + 2]);
        }
      } else {
        if (n_row < args.n) store_output(args, y_base, tile.first + line, n_row, sum[t][i]);
        if (n_row + 8 < args.n) store_output(args, y_base, tile.first + line, n_row + 8, sum[t][i + 2]);
      }
    }
  }
}

template <bool kFp8, int kStripes, int kTokens>
void launch(device::cuda::Stream& stream, const TileCall& call) {
  using S = Shape<kFp8, kStripes, kTokens>;
  const auto kernel = mma_kernel<kFp8, kStripes, kTokens>;
  [[maybe_unused]] static const bool allowed = device::cuda::allow_shared_memory(stream, kernel, S::kBytes);
  const dim3 grid(static_cast<unsigned>((call.args.n + kStripes * 16 - 1) / (kStripes * 16)),
                  static_cast<unsigned>(call.row_tiles(kTokens)), static_cast<unsigned>(call.heads));
  device::cuda::launch_early(stream, kernel, grid, dim3(kThreads), S::kBytes, call.args);
}

// The wider the tile, the fewer times tokens are read, and the fewer tiles there are to fill the GPU.
template <bool kFp8>
void choose(device::cuda::Stream& stream, const TileCall& call) {
  const int64_t rows =
      call.args.offsets != nullptr ? ceil_div<int64_t>(call.max_rows, call.args.groups) : call.max_rows;
  const int64_t stripes = ceil_div<int64_t>(call.args.n, 16) * call.heads *
                          (call.args.offsets != nullptr ? call.row_tiles(32) : 1);
  const bool many = stripes >= 4 * int64_t{stream.gpu().multiprocessors};
  if (rows <= 8) return many ? launch<kFp8, 2, 8>(stream, call) : launch<kFp8, 1, 8>(stream, call);
  if (rows <= 16) return many ? launch<kFp8, 2, 16>(stream, call) : launch<kFp8, 1, 16>(stream, call);
  if (rows <= 32) return many ? launch<kFp8, 4, 32>(stream, call) : launch<kFp8, 1, 32>(stream, call);
  return many ? launch<kFp8, 4, 64>(stream, call) : launch<kFp8, 2, 64>(stream, call);
}

}  // namespace

void linear_mma(device::cuda::Stream& stream, const TileCall& call) {
  if (call.weight_dtype == device::DType::kF8E4M3) {
    choose<true>(stream, call);
  } else {
    choose<false>(stream, call);
  }
  stream.launched("linear (mma)");
}

}  // namespace fathom::ops::cuda

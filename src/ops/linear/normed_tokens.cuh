// Few tokens that come from a norm, normed and rounded to FP8 by every CTA that multiplies them, into its
// shared memory: of one row that is less than what a kernel between two others takes. The bits of rms_norm.
#pragma once

#include "device/cuda/launch_kernel.h"
#include "ops/linear/cuda_kernels.h"
#include "ops/rms_norm/row.cuh"
#include "ops/wgmma.cuh"

namespace fathom::ops::cuda {

inline constexpr int64_t kNormedWidth = 1536;  // q_lora_rank of V2 and V3
inline constexpr int64_t kMostNormedRows = 8;  // the rows of a swizzled tile's eight lines

template <bool kNorms>
struct NormedTokens;
template <>
struct NormedTokens<false> {};
template <>
struct NormedTokens<true> {
  static constexpr int kBlocks = kNormedWidth / kQuantizeBlock;
  static constexpr int kBlockBytes = kMostNormedRows * kQuantizeBlock;  // of tokens

  const __nv_bfloat16* x;  // [rows, kNormedWidth]
  int64_t stride;
  const float* weight;
  float eps;
  int rows;

#ifdef __CUDACC__
  static constexpr int kParts = norm_parts(kNormedWidth), kWarps = norm_block(kNormedWidth) / 32;
  static_assert(kParts * kWarps * 32 * kPart == kNormedWidth && kWarps <= 4);
  static constexpr int kThreads = kWarps * 32;

  // By the first kThreads threads of four warps, as BlockRow would have a row. `tokens`: a tile of eight rows
  // of 128 bytes for each block, in the 128-byte swizzle; scales: [kBlocks, scale_stride]. Waits for the
  // kernel ahead; before that it runs once over what is there already, for its instructions come from memory
  // too.
  __device__ void bring(uint8_t* tokens, float* scales, int scale_stride) const {
    __shared__ float sums[2][kWarps];
    const auto thread = static_cast<int>(threadIdx.x);
    if (thread < kThreads) {
      Floats factors[kParts];
#pragma unroll
      for (int p = 0; p < kParts; ++p) factors[p] = load_part(weight + (p * kThreads + thread) * kPart);
#pragma unroll 1
      for (int turn = -1; turn < rows; ++turn) {
        if (turn == 0) device::cuda::wait_for_previous();
        const int row = max(turn, 0);
        const auto* from = turn < 0 ? reinterpret_cast<const __nv_bfloat16*>(weight) : x + row * stride;
        Floats values[kParts];
#pragma unroll
        for (int p = 0; p < kParts; ++p) values[p] = load_part(from + (p * kThreads + thread) * kPart);
        float sum = 0.0F;
#pragma unroll
        for (int p = 0; p < kParts; ++p) sum = add_squares(values[p], sum);
        sum = warp_sum(sum);
        float* const of_warps = sums[turn & 1];
        if (thread % 32 == 0) of_warps[thread / 32] = sum;
        named_barrier_sync(2, kThreads);
        float squares = 0.0F;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) squares += of_warps[w];
        const float scale = norm_scale(squares, kNormedWidth, eps);
#pragma unroll
        for (int p = 0; p < kParts; ++p) {
          const Floats normed = normed_part(values[p], scale, factors[p]);
          const RoundedPart rounded = round_part(stored_as<__nv_bfloat16>(normed));
          const int first = (p * kThreads + thread) * kPart;
          const int block = first / kQuantizeBlock, column = first % kQuantizeBlock;
          uint8_t* line = tokens + block * kBlockBytes + row * kQuantizeBlock;
          store_part(reinterpret_cast<f8e4m3*>(line + (column / 16 ^ row) * 16 + column % 16),
                     rounded.values);
          if (column == 0) scales[block * scale_stride + row] = rounded.scale;
        }
      }
    } else {
      device::cuda::wait_for_previous();
    }
    fence_async();
  }
#endif
};

}  // namespace fathom::ops::cuda

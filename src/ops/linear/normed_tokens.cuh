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
  // By four warps, each of every fourth row. `tokens`: a tile of eight rows of 128 bytes for each block, in
  // the 128-byte swizzle; scales: [kBlocks, scale_stride]. Waits for the kernel ahead.
  __device__ void bring(uint8_t* tokens, float* scales, int scale_stride) const {
    // A row's sum of squares is that of BlockRow: whose warps are here one after another.
    constexpr int kParts = norm_parts(kNormedWidth), kWarps = norm_block(kNormedWidth) / 32;
    static_assert(kParts * kWarps * 32 * kPart == kNormedWidth);
    const auto warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
    const auto first_of = [&](int w, int p) { return ((p * kWarps + w) * 32 + lane) * kPart; };
    Floats factors[kWarps][kParts], values[kWarps][kParts];
    const auto each = [&](const auto& visit) {
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
#pragma unroll
        for (int p = 0; p < kParts; ++p) visit(w, p);
      }
    };
    if (warp < rows) each([&](int w, int p) { factors[w][p] = load_part(weight + first_of(w, p)); });
    device::cuda::wait_for_previous();
#pragma unroll 1
    for (int row = warp; row < rows; row += 4) {
      each([&](int w, int p) { values[w][p] = load_part(x + row * stride + first_of(w, p)); });
      float squares = 0.0F;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        float sum = 0.0F;
#pragma unroll
        for (int p = 0; p < kParts; ++p) sum = add_squares(values[w][p], sum);
        squares += warp_sum(sum);
      }
      const float scale = norm_scale(squares, kNormedWidth, eps);
      each([&](int w, int p) {
        const Floats normed = normed_part(values[w][p], scale, factors[w][p]);
        const RoundedPart rounded = round_part(stored_as<__nv_bfloat16>(normed));
        const int first = first_of(w, p), block = first / kQuantizeBlock, column = first % kQuantizeBlock;
        uint8_t* line = tokens + block * kBlockBytes + row * kQuantizeBlock;
        store_part(reinterpret_cast<f8e4m3*>(line + (column / 16 ^ row) * 16 + column % 16), rounded.values);
        if (column == 0) scales[block * scale_stride + row] = rounded.scale;
      });
    }
    fence_async();
  }
#endif
};

}  // namespace fathom::ops::cuda

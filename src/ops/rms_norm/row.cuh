// One row of RMSNorm on the GPU, for every kernel that ends in a norm: the same bits of the same row.
#pragma once

#include "ops/quantize/block.cuh"
#include "ops/vector/cuda.cuh"

namespace fathom::ops::cuda {

inline constexpr int64_t kMostNormWidth = 32768;

// Parts of eight that one thread holds, part p beginning at column (p * threads + thread) * 8: which thread
// adds which elements follows from the width alone.
constexpr int norm_parts(int64_t width) {
  return width <= 1024 ? 1 : width <= 8192 ? 2 : 4;
}
// Threads of the block that holds a row, and the most of them for so many parts.
constexpr unsigned norm_block(int64_t width) {
  const int parts = norm_parts(width);
  return static_cast<unsigned>((parts_of(width) + parts * 32 - 1) / (parts * 32) * 32);
}
constexpr int norm_threads(int parts) {
  return parts == 1 ? 128 : parts == 2 ? 512 : 1024;
}

#ifdef __CUDACC__
// y = values / sqrt(mean(values^2) + eps) * weight, and what y holds once more in FP8 where `rounded` has a
// place; the whole block calls it. `shared` [32] is not in use.
template <int kParts, bool kVectors, class Y>
__device__ void norm_row(const Floats (&values)[kParts], const float* weight, float eps, int64_t width,
                         Y* y_row, const QuantizedRowView& rounded, float* shared) {
  float sum = 0.0F;
#pragma unroll
  for (int p = 0; p < kParts; ++p) sum = add_squares(values[p], sum);
  const float scale = 1.0F / sqrtf(block_sum(sum, shared) / static_cast<float>(width) + eps);
#pragma unroll
  for (int p = 0; p < kParts; ++p) {
    const int64_t first = (p * static_cast<int64_t>(blockDim.x) + threadIdx.x) * kPart;
    const Floats factors = load_part<kVectors>(weight, first, width);
    Floats out;
#pragma unroll
    for (int i = 0; i < kPart; ++i) out.v[i] = values[p].v[i] * scale * factors.v[i];
    store_part<kVectors>(y_row, first, width, out);
    if (rounded.values == nullptr) continue;
#pragma unroll
    for (int i = 0; i < kPart; ++i) out.v[i] = to_float(from_float<Y>(out.v[i]));
    quantize_part<kVectors>(rounded, first, width, out);
  }
}
#endif

}  // namespace fathom::ops::cuda

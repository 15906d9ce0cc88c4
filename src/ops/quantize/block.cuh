// A block of a row rounded to FP8 on the GPU, for every kernel that ends in one: the same bits of the same
// row.
#pragma once

#include "ops/quantize/ref.h"
#include "ops/vector/cuda.cuh"

namespace fathom::ops::cuda {

// Where a row's rounding goes; nowhere when values is null.
struct QuantizedRowView {
  uint8_t* values = nullptr;
  float* scales = nullptr;  // of the row's first block; the next ones lie scale_stride apart
  int64_t scale_stride = 0;
};
__device__ inline QuantizedRowView row_of(const QuantizedMatrix& m, int64_t row) {
  if (m.values == nullptr) return {};
  return {m.values + row * m.stride, m.scales + row, m.scale_stride};
}

// The part of a row of `width` that begins at column `first`, of which the sixteen lanes of half a warp hold
// a block side by side; all of them call it. Past the row's end the part is zero.
template <bool kVectors>
__device__ void quantize_part(const QuantizedRowView& row, int64_t first, int64_t width, const Floats& part) {
  float largest = kLeastMagnitude;
#pragma unroll
  for (int i = 0; i < kPart; ++i) largest = fmaxf(largest, fabsf(part.v[i]));
#pragma unroll
  for (int step = 8; step > 0; step /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, step));
  const float factor = __fdiv_rn(kLargestE4m3, largest);
  Floats scaled;
#pragma unroll
  for (int i = 0; i < kPart; ++i) scaled.v[i] = part.v[i] * factor;
  store_part<kVectors>(reinterpret_cast<f8e4m3*>(row.values), first, width, scaled);
  if (first % kQuantizeBlock == 0 && first < width)
    row.scales[first / kQuantizeBlock * row.scale_stride] = __fdiv_rn(largest, kLargestE4m3);
}

}  // namespace fathom::ops::cuda

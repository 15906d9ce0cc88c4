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

// What a part becomes, before it is cast, and its block's scale.
struct RoundedPart {
  Floats values;
  float scale;
};
// A part of a block that the sixteen lanes of half a warp hold side by side; all of them call it.
__device__ inline RoundedPart round_part(const Floats& part) {
  float largest = kLeastMagnitude;
#pragma unroll
  for (int i = 0; i < kPart; ++i) largest = fmaxf(largest, fabsf(part.v[i]));
#pragma unroll
  for (int step = 8; step > 0; step /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, step));
  const float factor = __fdiv_rn(kLargestE4m3, largest);
  RoundedPart rounded;
#pragma unroll
  for (int i = 0; i < kPart; ++i) rounded.values.v[i] = part.v[i] * factor;
  rounded.scale = __fdiv_rn(largest, kLargestE4m3);
  return rounded;
}

// The same of a row of `width`, of the part that begins at column `first`. Past the row's end the part is
// zero.
template <bool kVectors>
__device__ void quantize_part(const QuantizedRowView& row, int64_t first, int64_t width, const Floats& part) {
  const RoundedPart rounded = round_part(part);
  store_part<kVectors>(reinterpret_cast<f8e4m3*>(row.values), first, width, rounded.values);
  if (first % kQuantizeBlock == 0 && first < width)
    row.scales[first / kQuantizeBlock * row.scale_stride] = rounded.scale;
}

}  // namespace fathom::ops::cuda

// Rotation of a part of a head's rope dimensions, shared by the kernels that fuse it.
#pragma once

#include "ops/rope/cuda.h"
#include "ops/vector/cuda.cuh"

namespace fathom::ops::cuda {

// `first` is even: pairs first / 2 .. first / 2 + 3 of the head, at a row of the table. Pairs beyond `half`
// stay as they are.
template <bool kVectors>
__device__ Floats rotate(const Floats& x, const RopeView& table, int64_t position, int64_t first) {
  const int64_t at = position * table.half + first / 2;
  float cos[kPart / 2], sin[kPart / 2];
  if constexpr (kVectors) {
    *reinterpret_cast<float4*>(cos) = *reinterpret_cast<const float4*>(table.cos + at);
    *reinterpret_cast<float4*>(sin) = *reinterpret_cast<const float4*>(table.sin + at);
  } else {
#pragma unroll
    for (int i = 0; i < kPart / 2; ++i) {
      const bool inside = first / 2 + i < table.half;
      cos[i] = inside ? table.cos[at + i] : 1.0F;
      sin[i] = inside ? table.sin[at + i] : 0.0F;
    }
  }
  Floats y;
#pragma unroll
  for (int i = 0; i < kPart / 2; ++i) {
    const float a = x.v[2 * i], b = x.v[2 * i + 1];
    y.v[2 * i] = fmaf(a, cos[i], -__fmul_rn(b, sin[i]));
    y.v[2 * i + 1] = fmaf(a, sin[i], __fmul_rn(b, cos[i]));
  }
  return y;
}

inline bool takes_parts(const RopeView& table) {
  return table.half % 4 == 0 && reinterpret_cast<uintptr_t>(table.cos) % 16 == 0 &&
         reinterpret_cast<uintptr_t>(table.sin) % 16 == 0;
}

}  // namespace fathom::ops::cuda

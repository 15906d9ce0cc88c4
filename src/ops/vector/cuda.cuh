// Eight elements at a time, of any dtype that the GPU's element-wise ops read or write, as floats. A row is
// given to threads in parts of eight whether or not it may be accessed as vectors, so that sums have the same
// order either way.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <cstdint>
#include <type_traits>

#include "base/check.h"
#include "ops/cuda_batch.h"

namespace fathom::ops::cuda {

using bf16 = __nv_bfloat16;
using f8e4m3 = __nv_fp8_e4m3;
using f8e5m2 = __nv_fp8_e5m2;

inline constexpr int kPart = 8;

constexpr int64_t parts_of(int64_t width) {
  return (width + kPart - 1) / kPart;
}

struct Floats {
  float v[kPart];
};

// A part in memory: accesses of 16 bytes, or of 8 for eight-bit types.
template <class T>
struct alignas(kPart * sizeof(T) < 16 ? kPart * sizeof(T) : 16) Part {
  T v[kPart];
};

__device__ inline float to_float(float value) {
  return value;
}
__device__ inline float to_float(bf16 value) {
  return __bfloat162float(value);
}

// Rounds to nearest even; FP8 saturates.
template <class T>
__device__ T from_float(float value) {
  return T(value);
}

template <class T>
__device__ Floats load_part(const T* from) {
  const Part<T> part = *reinterpret_cast<const Part<T>*>(from);
  Floats out;
#pragma unroll
  for (int i = 0; i < kPart; ++i) out.v[i] = to_float(part.v[i]);
  return out;
}

template <class T>
__device__ void store_part(T* to, const Floats& values) {
  Part<T> part;
#pragma unroll
  for (int i = 0; i < kPart; i += 2) {
    const float2 pair{values.v[i], values.v[i + 1]};
    if constexpr (sizeof(T) == 4) {
      part.v[i] = pair.x;
      part.v[i + 1] = pair.y;
    } else if constexpr (sizeof(T) == 2) {
      const __nv_bfloat162 both = __float22bfloat162_rn(pair);
      part.v[i] = both.x;
      part.v[i + 1] = both.y;
    } else {
      constexpr __nv_fp8_interpretation_t kind = std::is_same_v<T, f8e4m3> ? __NV_E4M3 : __NV_E5M2;
      const __nv_fp8x2_storage_t both = __nv_cvt_float2_to_fp8x2(pair, __NV_SATFINITE, kind);
      part.v[i].__x = static_cast<__nv_fp8_storage_t>(both & 0xffU);
      part.v[i + 1].__x = static_cast<__nv_fp8_storage_t>(both >> 8);
    }
  }
  *reinterpret_cast<Part<T>*>(to) = part;
}

// The part of a row of `width` that begins at column `first`; past the row's end it is zero, and not stored.
// Vectors: the row is aligned and width a multiple of eight.
template <bool kVectors, class T>
__device__ Floats load_part(const T* row, int64_t first, int64_t width) {
  Floats out{};
  if constexpr (kVectors) {
    if (first < width) out = load_part(row + first);
  } else {
#pragma unroll
    for (int i = 0; i < kPart; ++i) {
      if (first + i < width) out.v[i] = to_float(row[first + i]);
    }
  }
  return out;
}

template <bool kVectors, class T>
__device__ void store_part(T* row, int64_t first, int64_t width, const Floats& values) {
  if constexpr (kVectors) {
    if (first < width) store_part(row + first, values);
  } else {
#pragma unroll
    for (int i = 0; i < kPart; ++i) {
      if (first + i < width) row[first + i] = from_float<T>(values.v[i]);
    }
  }
}

// x^2 summed over a part, after what `sum` holds.
__device__ inline float add_squares(const Floats& x, float sum) {
#pragma unroll
  for (int i = 0; i < kPart; ++i) sum = fmaf(x.v[i], x.v[i], sum);
  return sum;
}

__device__ inline float warp_sum(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffU, value, step);
  return value;
}

// The sum over the block, for every thread; all threads call it, whole warps only. `shared` [32].
__device__ inline float block_sum(float value, float* shared) {
  value = warp_sum(value);
  const unsigned warps = blockDim.x / 32;
  if (warps == 1) return value;
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0.0F;
  for (unsigned w = 0; w < warps; ++w) sum += shared[w];
  return sum;
}

// Whether accesses of parts of `size`-byte elements at data, data + stride, ... are aligned.
inline bool takes_parts(const void* data, int64_t size, int64_t columns, int64_t stride) {
  const int64_t bytes = size * kPart < 16 ? size * kPart : 16;
  return reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(bytes) == 0 && columns % kPart == 0 &&
         stride * size % bytes == 0;
}
inline bool takes_parts(const Matrix& m) {
  return takes_parts(m.data, device::size_of(m.dtype), m.columns, m.stride);
}

// Calls f with a null pointer of the element type.
template <class F>
void with_activation_type(device::DType dtype, const char* what, const F& f) {
  switch (dtype) {
    case device::DType::kF32:
      return f(static_cast<float*>(nullptr));
    case device::DType::kBF16:
      return f(static_cast<bf16*>(nullptr));
    default:
      FATHOM_CHECK(false, "{} of {}: activations are float32 or bfloat16", what, device::to_string(dtype));
  }
}
template <class F>
void with_cache_type(device::DType dtype, const F& f) {
  switch (dtype) {
    case device::DType::kF32:
      return f(static_cast<float*>(nullptr));
    case device::DType::kBF16:
      return f(static_cast<bf16*>(nullptr));
    case device::DType::kF8E4M3:
      return f(static_cast<f8e4m3*>(nullptr));
    case device::DType::kF8E5M2:
      return f(static_cast<f8e5m2*>(nullptr));
    default:
      FATHOM_CHECK(false, "a cache of {}: float32, bfloat16, float8_e4m3 or float8_e5m2",
                   device::to_string(dtype));
  }
}
// Calls f with std::true_type or std::false_type.
template <class F>
void with_flag(bool flag, const F& f) {
  if (flag) {
    f(std::true_type{});
  } else {
    f(std::false_type{});
  }
}

}  // namespace fathom::ops::cuda

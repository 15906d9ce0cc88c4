// FP8 values of a cache to f16, exactly, NaNs and infinities too: one conversion for two of them, where bf16
// takes five operations. Device code of the attention ops, which multiply an FP8 cache's entries as f16.
#pragma once

#include <cuda_fp16.h>

#include <type_traits>

#include "ops/attention/values.cuh"

namespace fathom::ops::cuda {

// What goes into the products beside a cache of T: f16 beside FP8, else bf16.
template <class T>
using ProductType = std::conditional_t<sizeof(T) == 1, __half, __nv_bfloat16>;

// Queries go into f16 as 2^-4 of themselves, up to 2^20; the scores' scale makes up for it. Those below 2^-10
// are off by 2^-21 at most.
template <class T>
inline constexpr float kQueryFactor = sizeof(T) == 1 ? 0x1p-4F : 1.0F;

inline float score_scale(float scale, device::DType cache) {
  return device::size_of(cache) == 1 ? scale / kQueryFactor<__nv_fp8_e4m3> : scale;
}

// The two values of a pair, f16 or bf16.
template <class P>
__device__ inline float2 unpack_pair(uint32_t pair) {
  if constexpr (std::is_same_v<P, __half>)
    return __half22float2(*reinterpret_cast<const __half2*>(&pair));
  else
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000U));
}

// Two bf16 queries to what goes into the products.
template <class T>
__device__ inline uint32_t query_pair(uint32_t pair) {
  if constexpr (sizeof(T) == 1) {
    const float2 values = unpack_pair<__nv_bfloat16>(pair);
    const __half2 half = __floats2half2_rn(values.x * kQueryFactor<T>, values.y * kQueryFactor<T>);
    return *reinterpret_cast<const uint32_t*>(&half);
  } else {
    return pair;
  }
}
// Two weights likewise.
template <class P>
__device__ inline uint32_t pack_pair(float low, float high) {
  if constexpr (std::is_same_v<P, __half>) {
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
  }
}

// Sixteen FP8 values, as two runs of eight.
template <class T>
__device__ inline void widen_f8x16(const uint4& bytes, uint4 (&wide)[2]) {
  static_assert(std::is_same_v<T, __nv_fp8_e4m3> || std::is_same_v<T, __nv_fp8_e5m2>);
  constexpr auto kFormat = std::is_same_v<T, __nv_fp8_e4m3> ? __NV_E4M3 : __NV_E5M2;
  const auto two = [](uint32_t pair) {
    const __half2_raw half = __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(pair), kFormat);
    return static_cast<uint32_t>(half.x) | static_cast<uint32_t>(half.y) << 16;
  };
  wide[0] =
      make_uint4(two(bytes.x & 0xffffU), two(bytes.x >> 16), two(bytes.y & 0xffffU), two(bytes.y >> 16));
  wide[1] =
      make_uint4(two(bytes.z & 0xffffU), two(bytes.z >> 16), two(bytes.w & 0xffffU), two(bytes.w >> 16));
}

}  // namespace fathom::ops::cuda

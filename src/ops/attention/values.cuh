// Reading eight values at a time of any element type on the GPU, as float32. Device code of the attention
// ops.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "device/dtype.h"

namespace fathom::ops::cuda {

inline constexpr float kLog2E = 1.4426950408889634F;

// `from` is aligned to eight elements, or to 16 bytes.
__device__ inline void load8(const float* from, float (&to)[8]) {
  const float4 a = reinterpret_cast<const float4*>(from)[0];
  const float4 b = reinterpret_cast<const float4*>(from)[1];
  to[0] = a.x, to[1] = a.y, to[2] = a.z, to[3] = a.w;
  to[4] = b.x, to[5] = b.y, to[6] = b.z, to[7] = b.w;
}
__device__ inline void load8(const __nv_bfloat16* from, float (&to)[8]) {
  const uint4 bits = *reinterpret_cast<const uint4*>(from);
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    to[2 * i] = __uint_as_float(words[i] << 16);
    to[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000U);
  }
}
template <__nv_fp8_interpretation_t kFormat>
__device__ inline void load8_f8(const void* from, float (&to)[8]) {
  const uint2 bits = *static_cast<const uint2*>(from);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t word = i < 2 ? bits.x : bits.y;
    const auto pair = static_cast<__nv_fp8x2_storage_t>(word >> (i % 2 * 16));
    const float2 values = __half22float2(__half2(__nv_cvt_fp8x2_to_halfraw2(pair, kFormat)));
    to[2 * i] = values.x;
    to[2 * i + 1] = values.y;
  }
}
__device__ inline void load8(const __nv_fp8_e4m3* from, float (&to)[8]) {
  load8_f8<__NV_E4M3>(from, to);
}
__device__ inline void load8(const __nv_fp8_e5m2* from, float (&to)[8]) {
  load8_f8<__NV_E5M2>(from, to);
}

// Two neighbours; `from` is aligned to two elements.
__device__ inline float2 load2(const float* from) {
  return *reinterpret_cast<const float2*>(from);
}
__device__ inline float2 load2(const __nv_bfloat16* from) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(from));
}
__device__ inline float2 load2(const __nv_fp8_e4m3* from) {
  const auto pair = *reinterpret_cast<const __nv_fp8x2_storage_t*>(from);
  return __half22float2(__half2(__nv_cvt_fp8x2_to_halfraw2(pair, __NV_E4M3)));
}
__device__ inline float2 load2(const __nv_fp8_e5m2* from) {
  const auto pair = *reinterpret_cast<const __nv_fp8x2_storage_t*>(from);
  return __half22float2(__half2(__nv_cvt_fp8x2_to_halfraw2(pair, __NV_E5M2)));
}

__device__ inline void store8(float* to, const float (&from)[8]) {
  reinterpret_cast<float4*>(to)[0] = make_float4(from[0], from[1], from[2], from[3]);
  reinterpret_cast<float4*>(to)[1] = make_float4(from[4], from[5], from[6], from[7]);
}
__device__ inline void store8(__nv_bfloat16* to, const float (&from)[8]) {
  __nv_bfloat162 pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) pairs[i] = __floats2bfloat162_rn(from[2 * i], from[2 * i + 1]);
  *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(pairs);
}

// Activations, whose type is known at run time only: for what is read or written once.
struct Activations {
  void* data;
  bool bf16;  // else float32

  __device__ float load(int64_t index) const {
    return bf16 ? __bfloat162float(static_cast<const __nv_bfloat16*>(data)[index])
                : static_cast<const float*>(data)[index];
  }
  __device__ void store(int64_t index, float value) const {
    if (bf16)
      static_cast<__nv_bfloat16*>(data)[index] = __float2bfloat16_rn(value);
    else
      static_cast<float*>(data)[index] = value;
  }
  // Four at once; the place is a multiple of 8 bytes (bf16) or 16.
  __device__ void store4(int64_t index, const float4& values) const {
    if (bf16) {
      const __nv_bfloat162 pairs[2] = {__floats2bfloat162_rn(values.x, values.y),
                                       __floats2bfloat162_rn(values.z, values.w)};
      *reinterpret_cast<uint2*>(static_cast<__nv_bfloat16*>(data) + index) =
          *reinterpret_cast<const uint2*>(pairs);
    } else {
      *reinterpret_cast<float4*>(static_cast<float*>(data) + index) = values;
    }
  }
};

// Calls function with a null pointer of the element type.
template <class Function>
void with_cache_type(device::DType dtype, const Function& function) {
  switch (dtype) {
    case device::DType::kF32:
      return function(static_cast<const float*>(nullptr));
    case device::DType::kBF16:
      return function(static_cast<const __nv_bfloat16*>(nullptr));
    case device::DType::kF8E4M3:
      return function(static_cast<const __nv_fp8_e4m3*>(nullptr));
    default:
      return function(static_cast<const __nv_fp8_e5m2*>(nullptr));
  }
}

}  // namespace fathom::ops::cuda

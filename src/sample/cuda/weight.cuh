// Logits as numbers that order and add exactly.
//
// key: unsigned, in the order of the logits; NaN below all, both zeros one. entry: a token's key and id,
// larger for the more likely token, and of equals for the lower id. weight: exp((x - highest) / temperature),
// the same bits as sample/row_loops.h. mass: the weight as a whole number of 2^-44.
#pragma once

#include <cstdint>

namespace fathom::sample::cuda {

using Entry = unsigned long long;
using Mass = unsigned long long;

__device__ inline uint32_t key_of(float x) {
  const uint32_t bits = __float_as_uint(x + 0.0F);
  const uint32_t key = bits ^ (static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000U);
  return x == x ? key : 0U;
}
__device__ inline float logit_of_key(uint32_t key) {
  if (key == 0) return __uint_as_float(0x7fc00000U);
  return __uint_as_float((key & 0x80000000U) != 0 ? key ^ 0x80000000U : ~key);
}

__device__ inline Entry entry_of(uint32_t key, uint32_t id) {
  return (static_cast<Entry>(key) << 32) | ~id;
}
__device__ inline uint32_t id_of(Entry entry) {
  return ~static_cast<uint32_t>(entry);
}
__device__ inline float logit_of(Entry entry) {
  return logit_of_key(static_cast<uint32_t>(entry >> 32));
}

// (x - highest) / temperature: at most 0, or NaN.
__device__ inline float exponent_of(float x, float highest, float scale) {
  return __fmul_rn(__fsub_rn(x, highest), scale);
}

// No contraction, no other order: the host's bits.
__device__ inline float weight_of(float t) {
  const float shifted = __fadd_rn(__fmul_rn(t, 1.44269504F), 12582912.0F);
  const float n = __fsub_rn(shifted, 12582912.0F);
  const float r = __fadd_rn(__fsub_rn(t, __fmul_rn(n, 0.693359375F)), __fmul_rn(n, 2.12194440e-4F));
  float p = 1.9875691500e-4F;
  p = __fadd_rn(__fmul_rn(p, r), 1.3981999507e-3F);
  p = __fadd_rn(__fmul_rn(p, r), 8.3334519073e-3F);
  p = __fadd_rn(__fmul_rn(p, r), 4.1665795894e-2F);
  p = __fadd_rn(__fmul_rn(p, r), 1.6666665459e-1F);
  p = __fadd_rn(__fmul_rn(p, r), 5.0000001201e-1F);
  p = __fadd_rn(__fadd_rn(__fmul_rn(__fmul_rn(p, r), r), r), 1.0F);
  const uint32_t exponent = (__float_as_uint(shifted) + 127U) << 23;
  const float result = __fmul_rn(p, __uint_as_float(exponent));
  return t > -85.0F ? result : 0.0F;
}

__device__ inline Mass mass_of(float weight) {
  return __float2ull_rn(weight * 0x1p44F);
}
constexpr double kMassUnit = 0x1p-44;

// How far below the largest logit, in sixteenths of a nat; the last bucket is what has no mass.
constexpr int kBuckets = 512;
constexpr int kLastBucket = kBuckets - 2;
__device__ inline int bucket_of(float t) {
  return static_cast<int>(fminf(t * -16.0F, static_cast<float>(kBuckets - 1)));  // NaN: the last
}

template <class T>
__device__ T warp_sum(T value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffU, value, step);
  return value;
}
// The sum over the lanes up to this one.
template <class T>
__device__ T warp_inclusive(T value) {
  const unsigned lane = threadIdx.x % 32;
#pragma unroll
  for (unsigned step = 1; step < 32; step *= 2) {
    const T other = __shfl_up_sync(0xffffffffU, value, step);
    if (lane >= step) value += other;
  }
  return value;
}

// Four logits from column i on; NaN past the row's end. Vectors: V % 4 == 0 and the row is aligned.
template <bool kVectors>
__device__ float4 load_four(const float* row, int64_t i, int64_t vocab) {
  const float nan = __uint_as_float(0x7fc00000U);
  if constexpr (kVectors) {
    return i < vocab ? *reinterpret_cast<const float4*>(row + i) : float4{nan, nan, nan, nan};
  } else {
    return {i < vocab ? row[i] : nan, i + 1 < vocab ? row[i + 1] : nan, i + 2 < vocab ? row[i + 2] : nan,
            i + 3 < vocab ? row[i + 3] : nan};
  }
}

}  // namespace fathom::sample::cuda

// The loops of row_kernels.h, written so that the compiler can vectorise them without changing a bit.
// Included once for each instruction set; everything has internal linkage.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>

#include "sample/row_kernels.h"

namespace fathom::sample {
namespace {

constexpr int64_t kLanes = 16;

inline float max_loop(const float* x, int64_t count) {
  float lanes[kLanes];
  for (float& lane : lanes) lane = -std::numeric_limits<float>::infinity();
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) lanes[l] = x[i + l] > lanes[l] ? x[i + l] : lanes[l];
  }
  for (; i < count; ++i) lanes[0] = x[i] > lanes[0] ? x[i] : lanes[0];
  float highest = lanes[0];
  for (const float lane : lanes) highest = lane > highest ? lane : highest;
  return highest;
}

// exp(t) for t <= 0: 2^n * exp(r), |r| <= ln(2) / 2, by a polynomial of degree 6 (Taylor's, its last terms
// fitted). Below kLowest, and for NaN, it computes something and then masks it: choices would become
// branches, and no vectors.
inline float exp_of(float t) {
  constexpr float kLowest = -85.0F;
  // Adding and taking away 1.5 * 2^23 rounds to the nearest whole number.
  const float shifted = t * 1.44269504F + 12582912.0F;
  const float n = shifted - 12582912.0F;
  const float r = (t - n * 0.693359375F) + n * 2.12194440e-4F;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * r * r + r + 1.0F;
  // The low bits of `shifted` are n; moved into the exponent they multiply by 2^n.
  const uint32_t exponent = (std::bit_cast<uint32_t>(shifted) + 127U) << 23;
  const float result = p * std::bit_cast<float>(exponent);
  const uint32_t keep = 0U - static_cast<uint32_t>(t > kLowest);
  return std::bit_cast<float>(std::bit_cast<uint32_t>(result) & keep);
}

inline void weigh_loop(const float* x, int64_t count, float highest, float scale, float* weights,
                       float* sums) {
  for (int64_t start = 0; start < count; start += kBlock) {
    const int64_t size = count - start < kBlock ? count - start : kBlock;
    const float* in = x + start;
    float* out = weights + start;
    for (int64_t i = 0; i < size; ++i) out[i] = exp_of((in[i] - highest) * scale);
    float lanes[kLanes] = {};
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes) {
      for (int64_t l = 0; l < kLanes; ++l) lanes[l] += out[i + l];
    }
    for (; i < size; ++i) lanes[0] += out[i];
    float sum = 0.0F;
    for (const float lane : lanes) sum += lane;
    sums[start / kBlock] = sum;
  }
}

constexpr RowKernels kLoops = {.max = max_loop, .weigh = weigh_loop};

}  // namespace
}  // namespace fathom::sample

// Vectors of 16 floats in plain C++: the AVX-512 shape of a kernel, testable on any machine. For tests only.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "device/dtype.h"

namespace fathom::ops {
namespace {

struct Emulated16 {
  struct F {
    float lane[16];
  };
  static constexpr int kLanes = 16;
  static constexpr int kRows1 = 12;
  static constexpr int kRows2 = 12;
  static constexpr bool kPairs = false;

  template <class Body>
  static F each(const Body& body) {
    F v;
    for (int i = 0; i < 16; ++i) v.lane[i] = body(i);
    return v;
  }
  static F zero() { return set(0.0F); }
  static F set(float value) {
    return each([&](int) { return value; });
  }
  static F load(const float* p) {
    return each([&](int i) { return p[i]; });
  }
  static void store(float* p, F v) {
    for (int i = 0; i < 16; ++i) p[i] = v.lane[i];
  }
  static F add(F a, F b) {
    return each([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static F sub(F a, F b) {
    return each([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  static F mul(F a, F b) {
    return each([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  static F div(F a, F b) {
    return each([&](int i) { return a.lane[i] / b.lane[i]; });
  }
  static F fma(F a, F b, F c) {
    return each([&](int i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); });
  }
  static F dot(F a, F b, F c) { return fma(a, b, c); }
  static F max(F a, F b) {
    return each([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static F select_le(F a, F b, F x, F y) {
    return each([&](int i) { return a.lane[i] <= b.lane[i] ? x.lane[i] : y.lane[i]; });
  }
  static F round(F v) {
    return each([&](int i) { return std::nearbyint(v.lane[i]); });
  }
  static F pow2(F n) {
    return each([&](int i) { return n.lane[i] <= -127.0F ? 0.0F : std::exp2(n.lane[i]); });
  }
  static F load_bf16(const uint16_t* p) {
    return each([&](int i) { return device::bf16_to_f32(p[i]); });
  }
  static F load_f16(const uint16_t* p) {
    return each([&](int i) { return device::f16_to_f32(p[i]); });
  }
  static void store_bf16(uint16_t* p, F v) {
    for (int i = 0; i < 16; ++i) p[i] = device::f32_to_bf16(v.lane[i]);
  }
  static float sum(F v) {
    for (int step = 8; step > 0; step /= 2) {
      for (int i = 0; i < step; ++i) v.lane[i] += v.lane[i + step];
    }
    return v.lane[0];
  }
  static F swap_pairs(F v) {
    return each([&](int i) { return v.lane[i ^ 1]; });
  }
  static F duplicate_pairs(const float* p) {
    return each([&](int i) { return p[i / 2]; });
  }
  static F add_sub(F a, F b) {
    return each([&](int i) { return i % 2 == 0 ? a.lane[i] - b.lane[i] : a.lane[i] + b.lane[i]; });
  }
  static void transpose8(const float* src, int64_t src_stride, float* dst, int64_t dst_stride, float factor) {
    for (int i = 0; i < 8; ++i) {
      for (int j = 0; j < 8; ++j) dst[j * dst_stride + i] = src[i * src_stride + j] * factor;
    }
  }
};

// The shape of avx512bf16.h's.
struct EmulatedBf16x16 : Emulated16 {
  static constexpr bool kPairs = true;

  static F dot(F a, F b, F c) {
    return each([&](int i) {
      const auto x = std::bit_cast<uint32_t>(a.lane[i]), y = std::bit_cast<uint32_t>(b.lane[i]);
      const float low = std::bit_cast<float>(x << 16) * std::bit_cast<float>(y << 16);
      const float high = std::bit_cast<float>(x & 0xffff0000U) * std::bit_cast<float>(y & 0xffff0000U);
      return c.lane[i] + high + low;
    });
  }
  static F pair(F low, F high) {
    return each([&](int i) {
      const uint32_t top = device::f32_to_bf16(high.lane[i]);
      return std::bit_cast<float>(top << 16 | device::f32_to_bf16(low.lane[i]));
    });
  }
  static void interleave(const uint16_t* low, const uint16_t* high, uint16_t* pairs) {
    for (int i = 0; i < 32; ++i) {
      pairs[2 * i] = low[i];
      pairs[2 * i + 1] = high[i];
    }
  }
};

}  // namespace
}  // namespace fathom::ops

// Weights, inputs and closeness for the tests of the linear ops and of what is built on them.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "base/random.h"
#include "device/cpu/isa.h"
#include "ops/linear/f8_encode.h"
#include "ops/linear/layout.h"
#include "ops/linear/linear.h"

namespace fathom::ops::testing {

constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();

inline std::vector<float> random_values(uint64_t seed, int64_t count, float scale) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = (random_uniform(seed, 7, i) - 0.5F) * 2.0F * scale;
  return values;
}

// A stored [rows, row_stride] weight of any dtype with a WeightSource that views it.
class StoredWeight {
 public:
  StoredWeight(device::DType dtype, int64_t rows, int64_t cols, uint64_t seed) {
    const int64_t stride = cols + 3;
    source_.dtype = dtype;
    source_.n = rows;
    source_.k = cols;
    source_.row_stride = stride;
    const std::vector<float> values = random_values(seed, rows * stride, 1.0F);
    bytes_.resize(values.size() * static_cast<size_t>(device::size_of(dtype)));
    for (size_t i = 0; i < values.size(); ++i) store(i, values[i]);
    source_.data = bytes_.data();
    if (dtype == device::DType::kF8E4M3) {
      source_.scale_stride = ceil_div(cols, kScaleBlock);
      scales_ = random_values(seed + 1, ceil_div(rows, kScaleBlock) * source_.scale_stride, 0.5F);
      for (float& scale : scales_) scale = (scale + 0.75F) / 448.0F;
      source_.scale_inv = scales_.data();
    }
  }
  StoredWeight(const StoredWeight&) = delete;
  StoredWeight& operator=(const StoredWeight&) = delete;

  const WeightSource& source() const { return source_; }
  // Rows [r0, r1), columns [c0, c1).
  WeightSource part(int64_t r0, int64_t r1, int64_t c0, int64_t c1) const {
    WeightSource s = source_;
    s.data = bytes_.data() + (r0 * s.row_stride + c0) * device::size_of(s.dtype);
    s.n = r1 - r0;
    s.k = c1 - c0;
    s.first_row = r0;
    s.first_col = c0;
    return s;
  }
  float value(int64_t row, int64_t col) const {
    const float v = device::load_as_f32(bytes_.data(), source_.dtype, row * source_.row_stride + col);
    if (scales_.empty()) return v;
    return v * scales_[static_cast<size_t>(row / kScaleBlock * source_.scale_stride + col / kScaleBlock)];
  }
  std::vector<uint8_t>& bytes() { return bytes_; }
  std::vector<float>& scales() { return scales_; }

 private:
  void store(size_t i, float value) {
    switch (source_.dtype) {
      case device::DType::kF32:
        std::memcpy(bytes_.data() + 4 * i, &value, 4);
        return;
      case device::DType::kBF16: {
        const uint16_t bits = device::f32_to_bf16(value);
        std::memcpy(bytes_.data() + 2 * i, &bits, 2);
        return;
      }
      case device::DType::kF16: {
        // Multiples of 2^-8 below 1 are exact in binary16: made by hand, as bits of sign, exponent, mantissa.
        int exponent = 0;
        const float fraction = std::frexp(std::nearbyint(std::fabs(value) * 256.0F) / 256.0F, &exponent);
        uint16_t bits = 0;
        if (fraction != 0) {
          bits = static_cast<uint16_t>((exponent + 14) * 1024 + static_cast<int>(fraction * 2048.0F) - 1024);
        }
        if (value < 0) bits |= 0x8000U;
        std::memcpy(bytes_.data() + 2 * i, &bits, 2);
        return;
      }
      default:
        // All 254 finite codes, denormals and zeros included, but in some stretches only: lines of a panel
        // with and without tiny codes (layout.h).
        bytes_[i] = f32_to_f8e4m3((i / 16 % 8 == 0 ? value * value * value : value) * 448.0F);
        return;
    }
  }

  WeightSource source_;
  std::vector<uint8_t> bytes_;
  std::vector<float> scales_;
};

// Every level that this processor has, the reference first.
inline std::vector<device::Target> available_targets() {
  std::vector<device::Target> targets;
  for (int level = 0; level <= static_cast<int>(device::detect_isa()); ++level) {
    targets.push_back({device::DeviceKind::kCpu, static_cast<device::Isa>(level)});
  }
  return targets;
}

}  // namespace fathom::ops::testing

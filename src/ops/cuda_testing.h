// What the tests of the GPU's ops share: matrices on the device whose gaps are poisoned, and comparisons that
// name the first bad place. Included by tests only.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "device/cuda/testing.h"
#include "ops/cuda_batch.h"
#include "ops/linear/f8_encode.h"

namespace fathom::ops::cuda {

// Skips a test where there is no GPU.
#define FATHOM_GPU_OR_SKIP(name)                                                                     \
  fathom::device::cuda::Stream* const name##_or_null = fathom::device::cuda::testing::test_stream(); \
  if (name##_or_null == nullptr) GTEST_SKIP() << "no GPU";                                           \
  fathom::device::cuda::Stream& name = *name##_or_null

inline std::vector<float> random_floats(int64_t count, std::mt19937& random, float deviation = 1.0F) {
  std::normal_distribution<float> normal(0.0F, deviation);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

// The value that `dtype` (F32 or BF16) holds of `value`.
inline float rounded(device::DType dtype, float value) {
  return dtype == device::DType::kBF16 ? device::bf16_to_f32(device::f32_to_bf16(value)) : value;
}
// The largest relative error of rounding to `dtype`.
inline float half_unit(device::DType dtype) {
  switch (dtype) {
    case device::DType::kBF16:
      return 0x1p-8F;
    case device::DType::kF8E4M3:
      return 0x1p-4F;
    case device::DType::kF8E5M2:
      return 0x1p-3F;
    default:
      return 0x1p-24F;
  }
}

// Elements of a dtype in device memory, NaN until set.
class DeviceValues {
 public:
  DeviceValues(device::DType dtype, int64_t count)
      : dtype_(dtype), count_(count), bytes_(std::max<int64_t>(count, 1) * device::size_of(dtype)) {}

  void* data() const { return bytes_.data(); }
  device::DType dtype() const { return dtype_; }
  int64_t size() const { return count_; }

  // F32 or BF16 only.
  void set(const std::vector<float>& values) {
    std::vector<uint8_t> raw(static_cast<size_t>(bytes_.size()));
    for (size_t i = 0; i < values.size(); ++i) {
      if (dtype_ == device::DType::kF32) {
        std::memcpy(raw.data() + 4 * i, &values[i], 4);
      } else {
        const device::bf16 bits = device::f32_to_bf16(values[i]);
        std::memcpy(raw.data() + 2 * i, &bits, 2);
      }
    }
    bytes_.set(raw);
  }
  std::vector<float> get() const {
    const std::vector<uint8_t> raw = bytes_.get();
    std::vector<float> values(static_cast<size_t>(count_));
    for (int64_t i = 0; i < count_; ++i) {
      values[static_cast<size_t>(i)] = device::load_as_f32(raw.data(), dtype_, i);
    }
    return values;
  }

 private:
  device::DType dtype_;
  int64_t count_;
  device::cuda::testing::DeviceArray<uint8_t> bytes_;
};

// A matrix of activations, its rows `gap` elements longer than its columns; NaN until set.
class DeviceMatrix {
 public:
  DeviceMatrix(device::DType dtype, int64_t rows, int64_t columns, int64_t gap = 0)
      : rows_(rows), columns_(columns), stride_(columns + gap), values_(dtype, rows * (columns + gap)) {}
  // Holds `values` [rows, columns], rounded.
  DeviceMatrix(device::DType dtype, int64_t rows, int64_t columns, const std::vector<float>& values,
               int64_t gap = 0)
      : DeviceMatrix(dtype, rows, columns, gap) {
    std::vector<float> all(static_cast<size_t>(rows * stride_), std::numeric_limits<float>::quiet_NaN());
    for (int64_t r = 0; r < rows; ++r) {
      std::copy_n(values.begin() + r * columns, columns, all.begin() + r * stride_);
    }
    values_.set(all);
  }

  Matrix view() const { return {values_.data(), values_.dtype(), rows_, columns_, stride_}; }
  // [rows, columns]; fails where a gap was written.
  std::vector<float> get() const {
    const std::vector<float> all = values_.get();
    std::vector<float> values;
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = 0; c < stride_; ++c) {
        const float value = all[static_cast<size_t>(r * stride_ + c)];
        if (c < columns_) {
          values.push_back(value);
        } else {
          EXPECT_TRUE(std::isnan(value)) << "row " << r << " was written beyond its end, at " << c;
        }
      }
    }
    return values;
  }

 private:
  int64_t rows_, columns_, stride_;
  DeviceValues values_;
};

inline std::vector<float> rounded(device::DType dtype, std::vector<float> values) {
  for (float& value : values) value = rounded(dtype, value);
  return values;
}

// |got - want| <= relative * |want| + absolute everywhere; NaN only where `want` is NaN.
inline void expect_near(const std::vector<float>& got, const std::vector<float>& want, float relative,
                        float absolute, int64_t columns, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    const bool good = std::isnan(want[i])
                          ? std::isnan(got[i])
                          : std::fabs(got[i] - want[i]) <= relative * std::fabs(want[i]) + absolute;
    ASSERT_TRUE(good) << what << ": row " << i / static_cast<size_t>(columns) << " column "
                      << i % static_cast<size_t>(columns) << " is " << got[i] << ", not " << want[i];
  }
}

// The same bits, NaN or not.
inline void expect_same(const std::vector<float>& got, const std::vector<float>& want, int64_t columns,
                        const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(want[i]))
        << what << ": row " << i / static_cast<size_t>(columns) << " column "
        << i % static_cast<size_t>(columns) << " is " << got[i] << ", not " << want[i];
  }
}

}  // namespace fathom::ops::cuda

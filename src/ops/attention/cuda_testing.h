// What the tests of the attention ops on the GPU share: sequences in a paged cache that host and device hold
// alike, and comparison with the CPU's reference. Included by tests only.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/math.h"
#include "device/cuda/testing.h"
#include "device/dtype.h"
#include "ops/cuda_batch.h"
#include "ops/kv_cache.h"

namespace fathom::ops::cuda::testing {

using device::DType;
using device::cuda::testing::DeviceArray;
using device::cuda::testing::test_stream;

// What a result may be off by: `relative` of itself, `absolute` besides.
struct Tolerance {
  double relative = 0, absolute = 0;
};
// Float32 arithmetic, outputs averages of values below 5 by scores of deviation about 1: as the CPU's float
// kernels (ops/attention/testing.h).
inline constexpr Tolerance kFloat32 = {0, 5e-5};
// The same, but the output is rounded to bf16: half a unit of its 8 bits.
inline constexpr Tolerance kRounded = {0x1p-8, 5e-5};
// The weights are rounded to bf16 besides, each by at most 2^-9 of itself; an average of values below 5 is
// then off by less than 5 * 2^-9. What is folded of many heads is rounded to f16 (2^-12 of itself), which is
// little beside it.
inline constexpr Tolerance kTensorCores = {0x1p-8, 5 * 0x1p-9};

inline uint32_t to_bits(DType type, float value) {
  return type == DType::kF32 ? std::bit_cast<uint32_t>(value) : device::f32_to_bf16(value);
}

// Values of `type` in host memory and on the device. FP8 values are drawn as bits: of either sign, magnitudes
// from 2^-4 to just below 4.
class Values {
 public:
  Values(DType type, int64_t count) : type_(type), bytes_(count * device::size_of(type), 0xff) {}

  void set(int64_t index, float value) {
    const uint32_t bits = to_bits(type_, value);
    std::memcpy(bytes_.data() + index * device::size_of(type_), &bits,
                static_cast<size_t>(device::size_of(type_)));
  }
  void draw(int64_t index, std::mt19937& random) {
    if (type_ == DType::kF8E4M3)
      bytes_[index] = static_cast<uint8_t>((random() & 0x80) | (24 + random() % 40));
    else if (type_ == DType::kF8E5M2)
      bytes_[index] = static_cast<uint8_t>((random() & 0x80) | (44 + random() % 20));
    else
      set(index, normal_(random));
  }
  void draw_all(std::mt19937& random) {
    for (int64_t i = 0; i < size(); ++i) draw(i, random);
  }
  float get(int64_t index) const { return device::load_as_f32(bytes_.data(), type_, index); }
  std::vector<float> floats() const {
    std::vector<float> values(static_cast<size_t>(size()));
    for (int64_t i = 0; i < size(); ++i) values[static_cast<size_t>(i)] = get(i);
    return values;
  }
  int64_t size() const { return static_cast<int64_t>(bytes_.size()) / device::size_of(type_); }
  DType type() const { return type_; }
  std::vector<uint8_t>& bytes() { return bytes_; }

 private:
  DType type_;
  std::vector<uint8_t> bytes_;
  std::normal_distribution<float> normal_;
};

// Sequences in shuffled pages; what no sequence owns is NaN.
class GpuSequences {
 public:
  GpuSequences(const std::vector<int32_t>& lengths, int64_t page_size, int64_t width, DType type,
               uint32_t seed)
      : random_(seed), page_size_(page_size), width_(width), values_(type, 0) {
    int64_t longest = 1;
    int64_t pages = 3;  // some belong to nobody
    for (const int32_t length : lengths) {
      pages += ceil_div<int64_t>(length, page_size);
      longest = std::max<int64_t>(longest, length);
    }
    table_stride_ = ceil_div(longest, page_size) + 2;
    tables_.assign(lengths.size() * static_cast<size_t>(table_stride_), 0x7fffffff);
    values_ = Values(type, pages * page_size * width);
    std::vector<int32_t> order(static_cast<size_t>(pages));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random_);
    size_t next = 0;
    for (size_t s = 0; s < lengths.size(); ++s) {
      for (int64_t p = 0; p < lengths[s]; ++p) {
        int32_t& page = tables_[s * static_cast<size_t>(table_stride_) + static_cast<size_t>(p / page_size)];
        if (p % page_size == 0) page = order[next++];
        const int64_t entry = (page * page_size + p % page_size) * width;
        for (int64_t d = 0; d < width; ++d) values_.draw(entry + d, random_);
      }
    }
    upload();
    device_tables_ = std::make_unique<DeviceArray<int32_t>>(tables_);
  }

  // A value of a sequence's entry of a place, as bytes of its type.
  void set_bits(size_t sequence, int64_t place, int64_t column, uint32_t bits) {
    const int64_t entry = table(sequence)[place / page_size_] * page_size_ + place % page_size_;
    const int64_t size = device::size_of(values_.type());
    std::memcpy(values_.bytes().data() + (entry * width_ + column) * size, &bits, static_cast<size_t>(size));
  }
  void upload() { device_values_ = std::make_unique<DeviceArray<uint8_t>>(values_.bytes()); }

  CacheView view() const { return {device_values_->data(), values_.type(), page_size_, width_}; }
  KvCache cache() {
    return {values_.bytes().data(), values_.type(), values_.size() / (page_size_ * width_), page_size_,
            width_};
  }
  const int32_t* table(size_t sequence) const {
    return tables_.data() + sequence * static_cast<size_t>(table_stride_);
  }
  const int32_t* device_tables() const { return device_tables_->data(); }
  int64_t table_stride() const { return table_stride_; }
  std::mt19937& random() { return random_; }

 private:
  std::mt19937 random_;
  int64_t page_size_, width_, table_stride_ = 0;
  Values values_;
  std::vector<int32_t> tables_;
  std::unique_ptr<DeviceArray<uint8_t>> device_values_;
  std::unique_ptr<DeviceArray<int32_t>> device_tables_;
};

// `got` has rows of got_stride values of `type`; compares `columns` of each with `want`, and reports the
// worst.
inline void expect_near_rows(const std::vector<uint8_t>& got, DType type, int64_t got_stride,
                             const std::vector<float>& want, int64_t columns, const Tolerance& tolerance,
                             const std::string& what) {
  double worst = 0;
  std::string report;
  for (int64_t i = 0; i < static_cast<int64_t>(want.size()); ++i) {
    const float value = device::load_as_f32(got.data(), type, i / columns * got_stride + i % columns);
    const float expected = want[static_cast<size_t>(i)];
    const double allowed = tolerance.absolute + tolerance.relative * std::fabs(expected);
    const double excess = std::isfinite(value) ? std::fabs(value - expected) / allowed
                                               : std::numeric_limits<double>::infinity();
    if (excess > worst) {
      worst = excess;
      report = fmt::format("row {} column {}: {} for {}", i / columns, i % columns, value, expected);
    }
  }
  EXPECT_LE(worst, 1.0) << what << " at " << report;
}

}  // namespace fathom::ops::cuda::testing

// Packing against the plain rule: which stored value each of the weight's elements is.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "base/random.h"
#include "device/cuda/testing.h"
#include "ops/linear/cuda_packing.h"
#include "ops/linear/f8_encode.h"
#include "ops/linear/fp8_words.h"

namespace fathom::ops::cuda {
namespace {

using device::DType;
using device::cuda::testing::DeviceArray;
using device::cuda::testing::test_stream;

struct Case {
  bool transposed;
  int turn;
  int64_t rows, k;  // stored rows that go to a group, and their width
  int64_t groups;
  int64_t chunk;          // stored rows of a call
  int64_t first_col = 0;  // where the columns begin in the stored tensor
};

uint8_t stored_bits(int64_t row, int64_t column) {
  const auto bits =
      static_cast<uint8_t>(random_bits(7, static_cast<uint64_t>(row), static_cast<uint64_t>(column)));
  return (bits & 0x7f) == 0x7f ? 0x3c : bits;  // no NaN
}

// The stored element of the weight's (group, row, k), or -1s where the plan leaves it alone.
std::pair<int64_t, int64_t> source_of(const Case& c, int64_t group, int64_t row, int64_t k) {
  const int64_t first = group * c.rows;
  if (c.transposed) return {first + k, row};
  if (c.turn < 0) return {first + row, k};
  if (row / 8 % 2 != c.turn) return {-1, -1};
  return {first + row / 16 * 8 + row % 8, k};
}

TEST(CudaPacking, EveryElementIsTheStoredOne) {
  auto* stream = test_stream();
  if (stream == nullptr) GTEST_SKIP() << "no GPU";
  for (const Case& c :
       {Case{false, -1, 40, 72, 1, 100}, Case{false, 0, 24, 200, 3, 7}, Case{false, 1, 24, 200, 3, 100},
        Case{true, -1, 40, 24, 2, 5}, Case{true, -1, 128, 512, 2, 61}}) {
    for (const DType type : {DType::kF8E4M3, DType::kBF16, DType::kF32}) {
      const int64_t n = c.transposed ? c.k : c.turn < 0 ? c.rows : 2 * c.rows;
      const int64_t k = c.transposed ? c.rows : c.k;
      const int64_t k_stride = (k + 15) / 16 * 16;
      const int64_t stored_rows = c.groups * c.rows;
      const int64_t blocks = (c.first_col + c.k + 127) / 128;
      std::vector<float> scales(static_cast<size_t>((stored_rows + 127) / 128 * blocks));
      for (size_t i = 0; i < scales.size(); ++i) scales[i] = 0.5F + static_cast<float>(i);
      DeviceArray<float> device_scales(scales);
      const int64_t bytes = c.groups * n * k_stride * device::size_of(type);
      DeviceArray<uint8_t> data(
          std::vector<uint8_t>(static_cast<size_t>(bytes), 0xa5));  // not what is wanted
      DeviceArray<float> weight_scales((k + 127) / 128 * ((n + 7) / 8) * c.groups);
      DeviceArray<int32_t> unsound(std::vector<int32_t>{0});

      PackPlan plan;
      plan.weight = {data.data(), weight_scales.data(), type, n, k, k_stride, c.groups};
      plan.rows = plan.group_step = c.rows;
      plan.groups = c.groups;
      plan.transposed = c.transposed;
      plan.turn = c.turn;
      for (int64_t begin = 0; begin < stored_rows; begin += c.chunk) {
        const int64_t end = std::min(begin + c.chunk, stored_rows);
        std::vector<uint8_t> part;
        for (int64_t row = begin; row < end; ++row) {
          for (int64_t column = 0; column < c.k; ++column)
            part.push_back(stored_bits(row, c.first_col + column));
        }
        DeviceArray<uint8_t> device_part(part);
        pack_rows(
            *stream,
            {device_part.data(), DType::kF8E4M3, begin, end, c.k, c.first_col, device_scales.data(), blocks},
            plan, unsound.data());
        ASSERT_TRUE(stream->synchronize().ok()) << stream->status().error().message;
      }

      const std::vector<uint8_t> got = data.get();
      const std::vector<float> got_scales = weight_scales.get();
      for (int64_t group = 0; group < c.groups; ++group) {
        for (int64_t row = 0; row < n; ++row) {
          const uint8_t* line =
              &got[static_cast<size_t>((group * n + row) * k_stride * device::size_of(type))];
          for (int64_t i = 0; i < k; ++i) {
            const auto [from_row, from_column] = source_of(c, group, row, i);
            if (from_row < 0) continue;
            const uint8_t bits = stored_bits(from_row, c.first_col + from_column);
            const float scale =
                scales[static_cast<size_t>(from_row / 128 * blocks + (c.first_col + from_column) / 128)];
            const std::string what = fmt::format("{} transposed={} turn={} group {} row {} k {}",
                                                 to_string(type), c.transposed, c.turn, group, row, i);
            if (type == DType::kF8E4M3) {
              uint32_t word;
              std::memcpy(&word, line + fp8_place(i).word * 4, 4);
              ASSERT_EQ(fp8_value(word, fp8_place(i).value), bits) << what;
              // A weight that is transposed keeps FP8 only where its rows lie in one block of the stored
              // ones.
              const bool one_block = !c.transposed || c.rows % 128 == 0;
              const int64_t at = (group * ((k + 127) / 128) + i / 128) * ((n + 7) / 8) + row / 8;
              if (one_block) {
                ASSERT_EQ(got_scales[static_cast<size_t>(at)], scale) << what;
              }
              continue;
            }
            const float wanted = device::f8e4m3_to_f32(bits) * scale;
            if (type == DType::kF32) {
              float value;
              std::memcpy(&value, line + i * 4, 4);
              ASSERT_EQ(value, wanted) << what;
            } else {
              uint16_t value;
              std::memcpy(&value, line + i * 2, 2);
              ASSERT_EQ(value, device::f32_to_bf16(wanted)) << what;
            }
          }
        }
      }
      EXPECT_EQ(unsound.get()[0], 0);
    }
  }
}

TEST(CudaPacking, NotANumberIsNoticed) {
  auto* stream = test_stream();
  if (stream == nullptr) GTEST_SKIP() << "no GPU";
  std::vector<uint8_t> stored(16 * 32, 0x38);
  stored[5 * 32 + 17] = 0xff;
  DeviceArray<uint8_t> device_stored(stored);
  DeviceArray<float> scales(std::vector<float>{1.0F});
  DeviceArray<uint8_t> data(16 * 32);
  DeviceArray<float> weight_scales(2);
  DeviceArray<int32_t> unsound(std::vector<int32_t>{0});
  PackPlan plan;
  plan.weight = {data.data(), weight_scales.data(), DType::kF8E4M3, 16, 32, 32, 1};
  plan.rows = 16;
  pack_rows(*stream, {device_stored.data(), DType::kF8E4M3, 0, 16, 32, 0, scales.data(), 1}, plan,
            unsound.data());
  ASSERT_TRUE(stream->synchronize().ok());
  EXPECT_EQ(unsound.get()[0], 1);
}

// Every value is the nearest FP8 one in units of its block's 448th; what fills the rows up is zero.
TEST(CudaPacking, AnFp8CopyRoundsToItsBlocksScale) {
  auto* stream = test_stream();
  if (stream == nullptr) GTEST_SKIP() << "no GPU";
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{24, 256}, {13, 72}, {8, 400}}) {
    const int64_t k_stride = (k + 15) / 16 * 16, blocks = (k + 127) / 128, eights = (n + 7) / 8;
    std::vector<uint16_t> bits(static_cast<size_t>(n * k_stride));
    const auto value = [&](int64_t row, int64_t column) {
      const float x =
          row == 3 ? 0.0F
                   : random_uniform(5, static_cast<uint64_t>(row), static_cast<uint64_t>(column)) - 0.5F;
      return std::bit_cast<float>(std::bit_cast<uint32_t>(row >= 8 ? x * 1000.0F : x) & 0xffff0000U);
    };
    for (int64_t row = 0; row < n; ++row) {
      for (int64_t column = 0; column < k; ++column) {
        bits[static_cast<size_t>(row * k_stride + column)] =
            static_cast<uint16_t>(std::bit_cast<uint32_t>(value(row, column)) >> 16);
      }
    }
    const DeviceArray<uint16_t> from(bits);
    DeviceArray<uint8_t> data(std::vector<uint8_t>(static_cast<size_t>(n * k_stride), 0xa5));
    DeviceArray<float> scales(std::vector<float>(static_cast<size_t>(blocks * eights), NAN));
    fp8_copy(*stream, {from.data(), nullptr, DType::kBF16, n, k, k_stride, 1},
             {data.data(), scales.data(), DType::kF8E4M3, n, k, k_stride, 1});
    ASSERT_TRUE(stream->synchronize().ok());
    const auto words = data.get();
    const auto got_scales = scales.get();
    for (int64_t row = 0; row < n; ++row) {
      for (int64_t column = 0; column < k_stride; ++column) {
        const Fp8Place place = fp8_place(column);
        uint32_t word = 0;
        std::memcpy(&word, words.data() + row * k_stride + place.word * 4, 4);
        float top = 0.0F;
        for (int64_t r = row / 8 * 8; r < std::min(row / 8 * 8 + 8, n); ++r) {
          for (int64_t c = column / 128 * 128; c < std::min(column / 128 * 128 + 128, k); ++c)
            top = std::max(top, std::fabs(value(r, c)));
        }
        const float scale = got_scales[static_cast<size_t>(column / 128 * eights + row / 8)];
        ASSERT_FLOAT_EQ(scale, top / 448.0F) << row << " " << column;
        const float got = device::f8e4m3_to_f32(fp8_value(word, place.value)) * scale;
        const float want = column < k ? value(row, column) : 0.0F;
        // Half of the last of three bits, or of the smallest step.
        ASSERT_NEAR(got, want, std::max(std::fabs(want) / 16.0F, scale / 1024.0F) * 1.001F)
            << row << " " << column;
      }
    }
  }
}

}  // namespace
}  // namespace fathom::ops::cuda

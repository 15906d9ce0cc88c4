// The GPU's rounding to FP8, by itself and at the end of a norm, has the reference's bits.
#include "ops/quantize/cuda.h"

#include "ops/cuda_testing.h"
#include "ops/quantize/ref.h"
#include "ops/rms_norm/cuda.h"

namespace fathom::ops::cuda {
namespace {

using device::DType;
using device::cuda::testing::DeviceArray;

// Poisoned memory for the rounding of rows x columns, with room beside and below.
struct Rounded {
  Rounded(int64_t rows, int64_t columns)
      : stride((columns + 15) / 16 * 16 + 16),
        values(rows * stride),
        scales((columns + kQuantizeBlock - 1) / kQuantizeBlock * (rows + 2)),
        matrix{values.data(), scales.data(), rows, columns, stride, rows + 2} {}

  int64_t stride;
  DeviceArray<uint8_t> values;
  DeviceArray<float> scales;
  QuantizedMatrix matrix;
};

// Rows from `valid` on must be as they were.
void expect_rounding(const Rounded& got, const std::vector<float>& x, int64_t valid,
                     const std::string& what) {
  const int64_t columns = got.matrix.columns;
  const std::vector<uint8_t> values = got.values.get();
  const std::vector<float> scales = got.scales.get();
  for (int64_t r = 0; r < got.matrix.rows; ++r) {
    const QuantizedRow expected = quantize_row_ref(
        std::span<const float>(x).subspan(static_cast<size_t>(r * columns), static_cast<size_t>(columns)));
    for (int64_t c = 0; c < got.stride; ++c) {
      const uint8_t bits = values[static_cast<size_t>(r * got.stride + c)];
      const bool written = r < valid && c < columns;
      ASSERT_EQ(bits, written ? expected.values[static_cast<size_t>(c)] : 0xff)
          << what << " row " << r << " column " << c;
    }
    for (size_t b = 0; b < expected.scales.size(); ++b) {
      const float scale = scales[b * static_cast<size_t>(got.matrix.scale_stride) + static_cast<size_t>(r)];
      if (r < valid) {
        ASSERT_EQ(std::bit_cast<uint32_t>(scale), std::bit_cast<uint32_t>(expected.scales[b]))
            << what << " row " << r << " block " << b;
      } else {
        ASSERT_TRUE(std::isnan(scale)) << what << " row " << r << " block " << b;
      }
    }
  }
}

constexpr struct {
  int64_t rows, columns;
} kShapes[] = {{1, 7168}, {5, 7168}, {3, 16384}, {70, 2048}, {9, 1536},
               {4, 64},   {2, 200},  {3, 77},    {300, 128}};

TEST(CudaQuantize, HasTheReferencesBits) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(1);
  for (const auto& shape : kShapes) {
    for (const DType type : {DType::kF32, DType::kBF16}) {
      for (const int64_t gap : {0, 8, 5}) {
        auto x = random_floats(shape.rows * shape.columns, random, 3.0F);
        x[0] = 0.0F;
        if (shape.rows > 2) {  // a block of nothing, and one of next to nothing
          for (int64_t c = 0; c < std::min<int64_t>(shape.columns, 128); ++c) {
            x[static_cast<size_t>(shape.columns + c)] = 0.0F;
            x[static_cast<size_t>(2 * shape.columns + c)] = 1e-38F;
          }
        }
        x = rounded(type, x);
        const DeviceMatrix device_x(type, shape.rows, shape.columns, x, gap);
        const Rounded all(shape.rows, shape.columns);
        quantize(stream, {.x = device_x.view(), .y = all.matrix});
        expect_rounding(all, x, shape.rows, fmt::format("{} x {} gap {}", shape.rows, shape.columns, gap));
        const auto valid = static_cast<int32_t>(shape.rows / 2);
        const DeviceArray<int32_t> count(std::vector<int32_t>{valid});
        const Rounded some(shape.rows, shape.columns);
        quantize(stream, {.x = device_x.view(), .y = some.matrix, .rows = count.data()});
        expect_rounding(some, x, valid, fmt::format("{} of {} x {}", valid, shape.rows, shape.columns));
      }
    }
  }
}

TEST(CudaQuantize, WhatIsNoNumberStaysNone) {
  FATHOM_GPU_OR_SKIP(stream);
  for (const float odd : {NAN, INFINITY, -INFINITY}) {
    std::vector<float> x(256, 1.0F);
    x[7] = odd;
    const DeviceMatrix device_x(DType::kF32, 1, 256, x, 0);
    const Rounded got(1, 256);
    quantize(stream, {.x = device_x.view(), .y = got.matrix});
    const std::vector<uint8_t> values = got.values.get();
    EXPECT_EQ(values[7] & 0x7f, 0x7f) << odd;
    EXPECT_EQ(values[200], 0x7e) << "the next block is its own";
  }
}

TEST(CudaQuantize, ANormRoundsWhatItWrites) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(2);
  for (const auto& shape : kShapes) {
    const auto x = random_floats(shape.rows * shape.columns, random, 3.0F);
    const DeviceArray<float> weight(random_floats(shape.columns, random));
    const DeviceMatrix device_x(DType::kF32, shape.rows, shape.columns, x, 0);
    const DeviceMatrix y(DType::kBF16, shape.rows, shape.columns, 0);
    const Rounded got(shape.rows, shape.columns);
    rms_norm(stream, {.x = device_x.view(), .y = y.view(), .weight = weight.data(), .rounded = got.matrix});
    expect_rounding(got, y.get(), shape.rows, fmt::format("norm of {} x {}", shape.rows, shape.columns));
    const Rounded again(shape.rows, shape.columns);
    add_rms_norm(stream, {.residual = static_cast<float*>(device_x.view().data),
                          .delta = {},
                          .weight = weight.data(),
                          .y = y.view(),
                          .rounded = again.matrix});
    expect_rounding(again, y.get(), shape.rows,
                    fmt::format("sum's norm of {} x {}", shape.rows, shape.columns));
  }
}

TEST(CudaQuantize, RowsAreGathered) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(3);
  const int64_t columns = 720;
  const auto x = random_floats(9 * columns, random, 3.0F);
  const DeviceMatrix device_x(DType::kF32, 9, columns, x, 0);
  const Rounded from(9, columns);
  quantize(stream, {.x = device_x.view(), .y = from.matrix});
  const std::vector<int32_t> ids{4, 0, 8, 8, 2, 77};
  const DeviceArray<int32_t> device_ids(ids);
  const DeviceArray<int32_t> count(std::vector<int32_t>{5});
  const Rounded to(6, columns);
  gather_quantized(stream,
                   {.x = from.matrix, .y = to.matrix, .ids = device_ids.data(), .rows = count.data()});
  std::vector<float> expected;
  for (const int32_t id : ids) {
    const auto row = x.begin() + static_cast<int64_t>(id == 77 ? 0 : id) * columns;
    expected.insert(expected.end(), row, row + columns);
  }
  expect_rounding(to, expected, 5, "gathered");
}

}  // namespace
}  // namespace fathom::ops::cuda

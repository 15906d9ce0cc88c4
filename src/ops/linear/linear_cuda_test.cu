// The GPU's linear against a double-precision product of the same rounded operands, and against itself: a row
// gives the same bits whatever kernel its batch's size chooses.
#include <gtest/gtest.h>

#include <bit>
#include <cstdlib>

#include "base/random.h"
#include "device/cuda/testing.h"
#include "ops/linear/cuda_kernels.h"
#include "ops/linear/f8_encode.h"
#include "ops/linear/fp8_words.h"

namespace fathom::ops::cuda {
namespace {

using device::DType;
using device::cuda::testing::DeviceArray;
using device::cuda::testing::test_stream;

float draw(uint64_t seed, int64_t i) {
  return static_cast<float>(random_uniform(seed, 1, static_cast<uint64_t>(i)) * 2.0 - 1.0);
}

// A weight on the device and its values on the host.
struct TestWeight {
  TestWeight(uint64_t seed, DType type, int64_t groups, int64_t n, int64_t k)
      : values(static_cast<size_t>(groups * n * k)),
        stride((k + 15) / 16 * 16),
        data(groups * n * stride * device::size_of(type)),
        scales((k + 127) / 128 * ((n + 7) / 8) * groups) {
    std::vector<uint8_t> bytes(static_cast<size_t>(data.size()));
    std::vector<float> scale(static_cast<size_t>(scales.size()));
    for (size_t i = 0; i < scale.size(); ++i)
      scale[i] = 0.5F + draw(seed + 1, static_cast<int64_t>(i)) * 0.25F;
    const int64_t row_groups = (n + 7) / 8;
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t row = 0; row < n; ++row) {
        for (int64_t col = 0; col < k; ++col) {
          float value = draw(seed, (g * n + row) * k + col);
          const int64_t line = (g * n + row) * stride;
          if (type == DType::kF8E4M3) {
            const uint8_t bits = f32_to_f8e4m3(value * 8.0F);
            const Fp8Place place = fp8_place(col);
            uint32_t word;
            std::memcpy(&word, &bytes[static_cast<size_t>(line + place.word * 4)], 4);
            word |= fp8_bits(bits, place.value);
            std::memcpy(&bytes[static_cast<size_t>(line + place.word * 4)], &word, 4);
            value =
                device::f8e4m3_to_f32(bits) * scale[static_cast<size_t>(g * ((k + 127) / 128) * row_groups +
                                                                        col / 128 * row_groups + row / 8)];
          } else if (type == DType::kBF16) {
            const uint16_t bits = device::f32_to_bf16(value);
            std::memcpy(&bytes[static_cast<size_t>(line + col) * 2], &bits, 2);
            value = device::bf16_to_f32(bits);
          } else {
            std::memcpy(&bytes[static_cast<size_t>(line + col) * 4], &value, 4);
          }
          values[static_cast<size_t>((g * n + row) * k + col)] = value;
        }
      }
    }
    data.set(bytes);
    scales.set(scale);
    weight = {data.data(), scales.data(), type, n, k, stride, groups};
  }

  std::vector<float> values;
  int64_t stride;
  DeviceArray<uint8_t> data;
  DeviceArray<float> scales;
  Weight weight;
};

// Activations of either type, and their values on the host.
struct TestRows {
  TestRows(uint64_t seed, DType type, int64_t rows, int64_t columns)
      : values(static_cast<size_t>(rows * columns)), data(rows * columns * device::size_of(type)) {
    std::vector<uint8_t> bytes(static_cast<size_t>(data.size()));
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = draw(seed, static_cast<int64_t>(i));
      if (type == DType::kBF16) {
        const uint16_t bits = device::f32_to_bf16(values[i]);
        std::memcpy(&bytes[i * 2], &bits, 2);
        values[i] = device::bf16_to_f32(bits);
      } else {
        std::memcpy(&bytes[i * 4], &values[i], 4);
      }
    }
    data.set(bytes);
    matrix = Matrix(data.data(), type, rows, columns);
  }
  std::vector<float> values;
  DeviceArray<uint8_t> data;
  Matrix matrix;
};

// float32 sums of k products: each addition may round by 2^-24 of the running sum, here bounded by the sum of
// magnitudes; bf16 products are exact. Tensor cores align addends of a k16 block and cut them: 2^-22 a block.
void expect_close(const std::vector<float>& got, const std::vector<double>& expected,
                  const std::vector<double>& magnitude, double tolerance, const std::string& what) {
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_LE(std::abs(got[i] - expected[i]), tolerance * magnitude[i])
        << what << " at " << i << ": got " << got[i] << ", expected " << expected[i];
  }
}

constexpr double kTolerance = 2e-6;

// A race checker takes a thousand times as long.
bool small() {
  return std::getenv("FATHOM_TEST_SMALL") != nullptr;
}

struct Case {
  DType x, w;
  int64_t rows, n, k;
  bool parted = false;
};

TEST(CudaLinear, MatchesTheReferenceAndItself) {
  auto* stream = test_stream();
  if (stream == nullptr) GTEST_SKIP() << "no GPU";
  std::vector<Case> cases;
  for (const DType w : {DType::kF32, DType::kBF16, DType::kF8E4M3}) {
    for (const auto& [n, k] :
         {std::pair<int64_t, int64_t>{160, 64}, {104, 48}, {576, 256}, {24, 1408}, {384, 2048}}) {
      cases.push_back({DType::kF32, w, 70, n, k});
      cases.push_back({DType::kBF16, w, 300, n, k});
    }
  }
  // So many tiles that the widest kernel is chosen.
  cases.push_back({DType::kBF16, DType::kBF16, 520, 16896, 64});
  // Rows in two bands.
  cases.push_back({DType::kBF16, DType::kBF16, 2200, 520, 64});
  // So many that a CTA has several of few rows.
  cases.push_back({DType::kBF16, DType::kBF16, 130, 17032, 192});
  // Part of a block of scales, an odd number of them, the longest sums, and enough columns for wide tiles.
  for (const DType w : {DType::kBF16, DType::kF8E4M3}) {
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{136, 576}, {40, 7168}, {8600, 136}})
      cases.push_back({DType::kBF16, w, 300, n, k});
  }
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{256, 7168},
                             {64, 2048},
                             {160, 5120},
                             {96, 4096},
                             {40, 1472},
                             {136, 576},
                             {1160, 1024},
                             {1032, 4160},
                             {24, 1000}})
    cases.push_back({DType::kBF16, DType::kBF16, 300, n, k, true});
  if (small()) {
    std::erase_if(cases, [](const Case& c) { return c.n * c.k > 160'000; });
  }
  uint64_t seed = 1;
  for (const Case& c : cases) {
    const std::string what = fmt::format("{} x {} [{}, {}, {}]{}", to_string(c.x), to_string(c.w), c.rows,
                                         c.n, c.k, c.parted ? " in parts" : "");
    seed += 10;
    TestWeight weight(seed, c.w, 1, c.n, c.k);
    weight.weight.parted = c.parted;
    TestRows x(seed + 5, c.x, c.rows, c.k);
    std::vector<double> expected(static_cast<size_t>(c.rows * c.n)), magnitude(expected.size());
    for (int64_t r = 0; r < c.rows; ++r) {
      for (int64_t n = 0; n < c.n; ++n) {
        double sum = 0.0;
        double total = 0.0;
        for (int64_t k = 0; k < c.k; ++k) {
          const double product = static_cast<double>(x.values[static_cast<size_t>(r * c.k + k)]) *
                                 weight.values[static_cast<size_t>(n * c.k + k)];
          sum += product;
          total += std::abs(product);
        }
        expected[static_cast<size_t>(r * c.n + n)] = sum;
        magnitude[static_cast<size_t>(r * c.n + n)] = total;
      }
    }
    std::vector<float> whole;
    // Sizes that take each kernel: matrix instructions of every width, then warpgroups.
    for (const int64_t rows : {c.rows, int64_t{1}, int64_t{7}, int64_t{16}, int64_t{31}, int64_t{33},
                               int64_t{64}, int64_t{65}, int64_t{96}, int64_t{128}, int64_t{130}}) {
      if (rows > c.rows) continue;
      DeviceArray<float> y(rows * c.n);
      linear(*stream, {.x = x.matrix.first_rows(rows),
                       .y = Matrix(y.data(), DType::kF32, rows, c.n),
                       .weight = &weight.weight});
      ASSERT_TRUE(stream->synchronize().ok()) << what << ": " << stream->status().error().message;
      const std::vector<float> got = y.get();
      if (whole.empty()) {
        whole = got;
        expect_close(got, expected, magnitude, kTolerance, what);
      }
      for (size_t i = 0; i < got.size(); ++i) {
        ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(whole[i]))
            << what << ": row " << i / static_cast<size_t>(c.n) << " differs between " << rows << " and "
            << c.rows << " rows: " << got[i] << ", " << whole[i];
      }
    }
    // BF16 out, overwritten: the same sums, rounded, by the kernels' own ways of storing them.
    for (const int64_t rows : {c.rows, int64_t{7}, int64_t{20}, int64_t{40}, int64_t{64}, int64_t{96}}) {
      if (rows > c.rows) continue;
      DeviceArray<uint16_t> y(rows * c.n);
      linear(*stream, {.x = x.matrix.first_rows(rows),
                       .y = Matrix(y.data(), DType::kBF16, rows, c.n),
                       .weight = &weight.weight});
      ASSERT_TRUE(stream->synchronize().ok()) << what << ": " << stream->status().error().message;
      const std::vector<uint16_t> got = y.get();
      for (size_t i = 0; i < got.size(); ++i) {
        ASSERT_EQ(got[i], device::f32_to_bf16(whole[i]))
            << what << " bf16, " << rows << " rows, row " << i / static_cast<size_t>(c.n) << " column "
            << i % static_cast<size_t>(c.n);
      }
    }
    // BF16 out, added to what is there.
    TestRows y(seed + 7, DType::kBF16, c.rows, c.n);
    linear(*stream, {.x = x.matrix, .y = y.matrix, .weight = &weight.weight, .accumulate = true});
    ASSERT_TRUE(stream->synchronize().ok()) << what;
    const std::vector<uint8_t> bytes = y.data.get();
    for (size_t i = 0; i < expected.size(); ++i) {
      uint16_t bits;
      std::memcpy(&bits, &bytes[i * 2], 2);
      const double wanted = expected[i] + y.values[i];
      ASSERT_LE(std::abs(device::bf16_to_f32(bits) - wanted),
                kTolerance * magnitude[i] + std::abs(wanted) * 0x1p-8)
          << what << " bf16 at " << i;
    }
  }
}

TEST(CudaLinear, GroupsReadTheirOwnRows) {
  auto* stream = test_stream();
  if (stream == nullptr) GTEST_SKIP() << "no GPU";
  for (const DType w : {DType::kF32, DType::kBF16, DType::kF8E4M3}) {
    for (const int64_t scale : {1, 12, 60, 150}) {  // rows a group: few, some, many, more
      for (const bool swiglu : {false, true}) {
        for (const bool gathered : {false, true}) {
          const int64_t groups = small() ? 9 : scale == 1 ? 300 : 40;
          const int64_t n = 48;
          const int64_t k = 192;
          TestWeight weight(77, w, groups, n, k);
          std::vector<int32_t> offsets{0};
          for (int64_t g = 0; g < groups; ++g) {
            const auto count = static_cast<int32_t>(draw(5, g) * 2.0F * static_cast<float>(scale) +
                                                    static_cast<float>(scale));
            offsets.push_back(offsets.back() + (g % 7 == 3 ? 0 : std::max(0, count)));
          }
          const int64_t rows = offsets.back();
          TestRows x(9, w == DType::kF32 ? DType::kF32 : DType::kBF16, rows, k);
          std::vector<int32_t> gather(static_cast<size_t>(rows));
          for (int64_t r = 0; r < rows; ++r)
            gather[static_cast<size_t>(r)] = static_cast<int32_t>(gathered ? (r * 37 + 11) % rows : r);
          DeviceArray<int32_t> device_offsets(offsets);
          DeviceArray<int32_t> device_gather(gather);
          const int64_t out = swiglu ? n / 2 : n;
          DeviceArray<float> y((rows + 5) * out);
          GroupedLinearArgs args;
          args.linear = {.x = x.matrix,
                         .y = Matrix(y.data(), DType::kF32, rows + 5, out),
                         .weight = &weight.weight,
                         .swiglu = swiglu};
          args.offsets = device_offsets.data();
          args.gather = gathered ? device_gather.data() : nullptr;
          args.max_rows = rows + 5;
          grouped_linear(*stream, args);
          ASSERT_TRUE(stream->synchronize().ok()) << stream->status().error().message;
          const std::vector<float> got = y.get();
          for (int64_t g = 0; g < groups; ++g) {
            for (int64_t r = offsets[static_cast<size_t>(g)]; r < offsets[static_cast<size_t>(g) + 1]; ++r) {
              const auto dot = [&](int64_t row) {
                double sum = 0.0;
                for (int64_t i = 0; i < k; ++i) {
                  sum += static_cast<double>(
                             x.values[static_cast<size_t>(gather[static_cast<size_t>(r)] * k + i)]) *
                         weight.values[static_cast<size_t>((g * n + row) * k + i)];
                }
                return sum;
              };
              for (int64_t c = 0; c < out; ++c) {
                double wanted = 0.0;
                if (swiglu) {
                  const double gate = dot(c / 8 * 16 + c % 8);
                  wanted = gate / (1.0 + std::exp(-gate)) * dot(c / 8 * 16 + 8 + c % 8);
                } else {
                  wanted = dot(c);
                }
                ASSERT_NEAR(got[static_cast<size_t>(r * out + c)], wanted, 1e-4 * (1.0 + std::abs(wanted)))
                    << to_string(w) << " scale " << scale << " swiglu " << swiglu << " gather " << gathered
                    << " row " << r << " column " << c;
              }
            }
          }
          for (size_t i = static_cast<size_t>(rows * out); i < got.size(); ++i)
            ASSERT_TRUE(std::isnan(got[i])) << "wrote past the rows";
          // The same in BF16, within its rounding.
          DeviceArray<uint16_t> rounded((rows + 5) * out);
          args.linear.y = Matrix(rounded.data(), DType::kBF16, rows + 5, out);
          grouped_linear(*stream, args);
          ASSERT_TRUE(stream->synchronize().ok()) << stream->status().error().message;
          const std::vector<uint16_t> short_got = rounded.get();
          for (size_t i = 0; i < short_got.size(); ++i) {
            const float value = device::bf16_to_f32(short_got[i]);
            if (i >= static_cast<size_t>(rows * out)) {
              ASSERT_TRUE(std::isnan(value)) << "wrote past the rows";
            } else {
              ASSERT_LE(std::abs(value - got[i]), 0x1p-8F * std::abs(got[i]) + 1e-30F)
                  << to_string(w) << " bf16 scale " << scale << " swiglu " << swiglu << " row "
                  << i / static_cast<size_t>(out) << " column " << i % static_cast<size_t>(out);
            }
          }
        }
      }
    }
  }
}

// A row has the same bits whichever experts are beside it: each expert's are those of a dense product.
TEST(CudaLinear, AnExpertsRowsAreADenseProducts) {
  auto* stream = test_stream();
  if (stream == nullptr) GTEST_SKIP() << "no GPU";
  for (const DType w : {DType::kBF16, DType::kF8E4M3}) {
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{176, 1408}, {200, 704}, {64, 64}, {4160, 64}}) {
      for (const int64_t mean : {1, 3, 7, 14, 30, 70}) {
        if (small() && (n * k > 4096 || mean > 14)) continue;
        if (n > 4096 && mean > 7) continue;  // which has more tiles than CTAs
        const int64_t groups = 11;
        TestWeight weight(31, w, groups, n, k);
        std::vector<int32_t> offsets{0};
        for (int64_t g = 0; g < groups; ++g) {  // from none to some three times the mean
          const auto count = static_cast<int32_t>(g % 5 == 2 ? 0 : 1 + (g * 7 + mean) % (2 * mean));
          offsets.push_back(offsets.back() + (g == 4 ? 3 * count : count));
        }
        const int64_t rows = offsets.back();
        const TestRows x(32, DType::kBF16, rows, k);
        std::vector<int32_t> gather(static_cast<size_t>(rows));
        for (int64_t r = 0; r < rows; ++r)
          gather[static_cast<size_t>(r)] = static_cast<int32_t>((r * 5 + 3) % rows);
        const DeviceArray<int32_t> device_offsets(offsets), device_gather(gather);
        DeviceArray<float> dense(rows * n), y(rows * n);
        for (const bool gathered : {false, true}) {
          grouped_linear(*stream, {.linear = {.x = x.matrix,
                                              .y = Matrix(y.data(), DType::kF32, rows, n),
                                              .weight = &weight.weight},
                                   .offsets = device_offsets.data(),
                                   .gather = gathered ? device_gather.data() : nullptr,
                                   .max_rows = rows});
          ASSERT_TRUE(stream->synchronize().ok()) << stream->status().error().message;
          const std::vector<float> got = y.get();
          for (int64_t g = 0; g < groups; ++g) {
            Weight one = weight.weight;
            one.groups = 1;
            one.data = static_cast<const uint8_t*>(one.data) + g * n * one.k_stride * device::size_of(w);
            one.scales = one.scales + g * one.scales_per_group();
            linear(*stream, {.x = x.matrix, .y = Matrix(dense.data(), DType::kF32, rows, n), .weight = &one});
            ASSERT_TRUE(stream->synchronize().ok()) << stream->status().error().message;
            const std::vector<float> want = dense.get();
            for (int64_t r = offsets[static_cast<size_t>(g)]; r < offsets[static_cast<size_t>(g) + 1]; ++r) {
              const int64_t from = gathered ? gather[static_cast<size_t>(r)] : r;
              for (int64_t c = 0; c < n; ++c) {
                ASSERT_EQ(std::bit_cast<uint32_t>(got[static_cast<size_t>(r * n + c)]),
                          std::bit_cast<uint32_t>(want[static_cast<size_t>(from * n + c)]))
                    << to_string(w) << " [" << n << ", " << k << "], " << mean
                    << " rows on average, gathered " << gathered << ", row " << r << " column " << c;
              }
            }
          }
        }
      }
    }
  }
}

// A dense product in the launch of the groups' has the bits that it has alone, and so have theirs.
TEST(CudaLinear, ADenseProductGoesBesideGroups) {
  auto* stream = test_stream();
  if (stream == nullptr) GTEST_SKIP() << "no GPU";
  const int64_t groups = 11;
  for (const DType w : {DType::kBF16, DType::kF8E4M3}) {
    TestWeight weight(61, w, groups, 176, 192);
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1104, 576}, {48, 64}, {9024, 192}}) {
      if (small() && n > 1104) continue;
      TestWeight other(62, w, 1, n, k);
      for (const int64_t tokens : {1, 8, 9, 16}) {
        const int64_t rows = tokens * 4;
        std::vector<int32_t> offsets{0};
        for (int64_t g = 0; g < groups; ++g)
          offsets.push_back(static_cast<int32_t>(g + 1 == groups ? rows : rows * (g + 1) / groups / 2));
        const DeviceArray<int32_t> device_offsets(offsets);
        const TestRows x(63, DType::kBF16, rows, 192), other_x(64, DType::kBF16, tokens, k);
        const auto run = [&](const LinearArgs* beside) {
          DeviceArray<uint16_t> y(rows * 88);
          grouped_linear(*stream, {.linear = {.x = x.matrix,
                                              .y = Matrix(y.data(), DType::kBF16, rows, 88),
                                              .weight = &weight.weight,
                                              .swiglu = true},
                                   .offsets = device_offsets.data(),
                                   .max_rows = rows,
                                   .beside = beside,
                                   .beside_early = tokens % 2 == 0});
          EXPECT_TRUE(stream->synchronize().ok()) << stream->status().error().message;
          return y.get();
        };
        DeviceArray<uint16_t> got(tokens * n), want(tokens * n);
        LinearArgs beside{
            .x = other_x.matrix, .y = Matrix(got.data(), DType::kBF16, tokens, n), .weight = &other.weight};
        ASSERT_EQ(run(nullptr), run(&beside)) << to_string(w) << ", " << tokens << " tokens";
        beside.y = Matrix(want.data(), DType::kBF16, tokens, n);
        linear(*stream, beside);
        ASSERT_TRUE(stream->synchronize().ok());
        ASSERT_EQ(got.get(), want.get())
            << to_string(w) << " [" << n << ", " << k << "], " << tokens << " tokens";
      }
    }
  }
}

TEST(CudaLinear, HeadsAreIndependent) {
  auto* stream = test_stream();
  if (stream == nullptr) GTEST_SKIP() << "no GPU";
  for (const DType w : {DType::kF32, DType::kBF16, DType::kF8E4M3}) {
    for (const int64_t rows : {1, 20, 60, 120, 200}) {
      const int64_t heads = 6;
      const int64_t n = 128;
      const int64_t k = 64;
      const int64_t x_step = 96;
      const int64_t y_step = 160;
      TestWeight weight(3, w, heads, n, k);
      TestRows x(4, w == DType::kF32 ? DType::kF32 : DType::kBF16, rows, heads * x_step);
      DeviceArray<float> y(rows * heads * y_step);
      Matrix out(y.data(), DType::kF32, rows, n, heads * y_step);
      batched_linear(*stream, {.linear = {.x = x.matrix.slice(0, k), .y = out, .weight = &weight.weight},
                               .x_step = x_step,
                               .y_step = y_step});
      ASSERT_TRUE(stream->synchronize().ok()) << stream->status().error().message;
      const std::vector<float> got = y.get();
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t h = 0; h < heads; ++h) {
          for (int64_t c = 0; c < y_step; ++c) {
            const float value = got[static_cast<size_t>((r * heads + h) * y_step + c)];
            if (c >= n) {
              ASSERT_TRUE(std::isnan(value)) << "wrote beside head " << h;
              continue;
            }
            double wanted = 0.0;
            for (int64_t i = 0; i < k; ++i) {
              wanted +=
                  static_cast<double>(x.values[static_cast<size_t>(r * heads * x_step + h * x_step + i)]) *
                  weight.values[static_cast<size_t>((h * n + c) * k + i)];
            }
            ASSERT_NEAR(value, wanted, 1e-4)
                << to_string(w) << " rows " << rows << " row " << r << " head " << h << " column " << c;
          }
        }
      }
    }
  }
}

// However many rows there are, a head's are the bits that one row alone has; in BF16, as the model has them.
TEST(CudaLinear, AHeadsRowsDoNotDependOnTheirNumber) {
  auto* stream = test_stream();
  if (stream == nullptr) GTEST_SKIP() << "no GPU";
  for (const DType w : {DType::kBF16, DType::kF8E4M3}) {
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{512, 128}, {128, 512}, {256, 384}, {96, 128}}) {
      for (const int64_t heads : {1, 3, 64}) {
        if (small() && (heads > 3 || n > 256)) continue;
        const int64_t x_step = k + 64, y_step = n + 64;
        TestWeight weight(53, w, heads, n, k);
        const int64_t most = small() ? 70 : 300;
        const TestRows x(54, DType::kBF16, most, heads * x_step);
        const auto run = [&](int64_t first, int64_t rows) {
          DeviceArray<uint16_t> y(rows * heads * y_step);
          batched_linear(*stream, {.linear = {.x = x.matrix.row_range(first, first + rows).slice(0, k),
                                              .y = Matrix(y.data(), DType::kBF16, rows, n, heads * y_step),
                                              .weight = &weight.weight},
                                   .x_step = x_step,
                                   .y_step = y_step});
          EXPECT_TRUE(stream->synchronize().ok()) << stream->status().error().message;
          return y.get();
        };
        for (const int64_t rows : {16, 17, 32, 33, 64, 65, 128, 129, 300}) {
          if (rows > most) continue;
          const std::vector<uint16_t> got = run(0, rows);
          for (const int64_t row : {int64_t{0}, rows / 2, rows - 1}) {
            const std::vector<uint16_t> want = run(row, 1);
            for (int64_t i = 0; i < heads * y_step; ++i) {
              const uint16_t value = got[static_cast<size_t>(row * heads * y_step + i)];
              if (i % y_step >= n) {
                ASSERT_TRUE(std::isnan(device::bf16_to_f32(value))) << "wrote beside head " << i / y_step;
                continue;
              }
              ASSERT_EQ(value, want[static_cast<size_t>(i)])
                  << to_string(w) << " [" << n << ", " << k << "], " << heads << " heads, " << rows
                  << " rows, row " << row << " head " << i / y_step << " column " << i % y_step;
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace fathom::ops::cuda

// FP8 weights times FP8 activations against a double-precision product of the same values, and against
// themselves: a row gives the same bits alone, in any batch and in any group.
#include <gtest/gtest.h>

#include <bit>
#include <cstdlib>

#include "base/random.h"
#include "device/cuda/testing.h"
#include "ops/linear/cuda.h"
#include "ops/linear/f8_encode.h"
#include "ops/quantize/cuda.h"
#include "ops/quantize/ref.h"
#include "ops/rms_norm/cuda.h"

namespace fathom::ops::cuda {
namespace {

using device::DType;
using device::cuda::testing::DeviceArray;
using device::cuda::testing::test_stream;

float draw(uint64_t seed, int64_t i) {
  return static_cast<float>(random_uniform(seed, 1, static_cast<uint64_t>(i)) * 2.0 - 1.0);
}

int64_t blocks_of(int64_t k) {
  return (k + kQuantizeBlock - 1) / kQuantizeBlock;
}

struct TestWeight {
  // paired: Weight::paired_scales.
  TestWeight(uint64_t seed, int64_t groups, int64_t n, int64_t k, bool paired)
      : stride((k + 15) / 16 * 16),
        values(static_cast<size_t>(groups * n * k)),
        host_scales(static_cast<size_t>(groups * blocks_of(k) * ((n + 7) / 8))),
        data(groups * n * stride),
        scales(static_cast<int64_t>(host_scales.size())) {
    std::vector<uint8_t> bytes(static_cast<size_t>(data.size()));
    for (size_t i = 0; i < host_scales.size(); ++i) {
      const auto eights = static_cast<size_t>((n + 7) / 8);
      const size_t eight = i % eights;
      const size_t from = paired ? i - eight + eight / 16 * 16 + eight % 2 : i;
      host_scales[i] = 0.5F + draw(seed + 1, static_cast<int64_t>(from)) * 0.25F;
    }
    for (int64_t row = 0; row < groups * n; ++row) {
      for (int64_t col = 0; col < k; ++col) {
        const uint8_t bits = f32_to_f8e4m3(draw(seed, row * k + col) * 8.0F);
        bytes[static_cast<size_t>(row * stride + col)] = bits;
        values[static_cast<size_t>(row * k + col)] = device::f8e4m3_to_f32(bits);
      }
    }
    data.set(bytes);
    scales.set(host_scales);
    weight = {data.data(), scales.data(), DType::kF8E4M3, n, k, stride, groups, true, paired};
  }
  // Group g alone.
  Weight group(int64_t g) const {
    Weight one = weight;
    one.data = data.data() + g * weight.n * stride;
    one.scales = scales.data() + g * weight.scales_per_group();
    one.groups = 1;
    return one;
  }
  float scale(int64_t row, int64_t block) const {
    return host_scales[static_cast<size_t>(block * ((weight.n + 7) / 8) + row / 8)];
  }

  int64_t stride;
  std::vector<float> values, host_scales;
  DeviceArray<uint8_t> data;
  DeviceArray<float> scales;
  Weight weight;
};

// Rows with a gap behind each, and more places for scales than rows.
struct TestRows {
  TestRows(uint64_t seed, int64_t rows, int64_t k)
      : values(static_cast<size_t>(rows * k)),
        host_scales(static_cast<size_t>(rows * blocks_of(k))),
        stride((k + 15) / 16 * 16 + 32),
        data(rows * stride),
        scales((rows + 3) * blocks_of(k)) {
    std::vector<uint8_t> bytes(static_cast<size_t>(data.size()), 0x7f);  // NaN where there is nothing
    std::vector<float> all_scales(static_cast<size_t>(scales.size()), NAN);
    for (int64_t row = 0; row < rows; ++row) {
      std::vector<float> x(static_cast<size_t>(k));
      const float size = 0.1F + 3.0F * std::abs(draw(seed + 1, row));
      for (int64_t col = 0; col < k; ++col) x[static_cast<size_t>(col)] = draw(seed, row * k + col) * size;
      const QuantizedRow rounded = quantize_row_ref(x);
      for (int64_t col = 0; col < k; ++col) {
        const uint8_t bits = rounded.values[static_cast<size_t>(col)];
        bytes[static_cast<size_t>(row * stride + col)] = bits;
        values[static_cast<size_t>(row * k + col)] = device::f8e4m3_to_f32(bits);
      }
      for (int64_t b = 0; b < blocks_of(k); ++b) {
        all_scales[static_cast<size_t>(b * (rows + 3) + row)] = rounded.scales[static_cast<size_t>(b)];
        host_scales[static_cast<size_t>(row * blocks_of(k) + b)] = rounded.scales[static_cast<size_t>(b)];
      }
    }
    data.set(bytes);
    scales.set(all_scales);
    matrix = {data.data(), scales.data(), rows, k, stride, rows + 3};
  }
  std::vector<float> values, host_scales;  // scales: [rows, blocks]
  int64_t stride;
  DeviceArray<uint8_t> data;
  DeviceArray<float> scales;
  QuantizedMatrix matrix;
};

// The tensor cores keep 13 bits below the largest of 32 products and what they are added to
// (arXiv:2412.19437, section 3.5.2, has 14) and cut the rest: each of the 33 may lose 2^-13 of the largest,
// which is here up to four times as large as they are on average.
constexpr double kTolerance = 4 * 0x1p-13;

bool small() {
  return std::getenv("FATHOM_TEST_SMALL") != nullptr;
}

std::vector<float> product(device::cuda::Stream& stream, const QuantizedMatrix& x, const Weight& weight,
                           bool swiglu) {
  const int64_t columns = swiglu ? weight.n / 2 : weight.n;
  DeviceArray<float> y(x.rows * columns);
  linear(stream, {.x = {},
                  .y = Matrix(y.data(), DType::kF32, x.rows, columns),
                  .weight = &weight,
                  .swiglu = swiglu,
                  .x8 = x});
  EXPECT_TRUE(stream.synchronize().ok()) << stream.status().error().message;
  return y.get();
}

TEST(CudaLinearW8A8, MatchesTheReferenceAndItself) {
  auto* stream = test_stream();
  if (stream == nullptr || !stream->gpu().hopper()) GTEST_SKIP() << "no Hopper GPU";
  struct Case {
    int64_t rows, n, k;
  };
  std::vector<Case> cases = {{300, 160, 64},    {300, 104, 48},    {300, 24, 1408},   {300, 384, 2048},
                             {300, 136, 576},   {300, 136, 576},   {300, 40, 7168},   {300, 8600, 136},
                             {1100, 2112, 256}, {1100, 2112, 256}, {600, 2816, 128},  {600, 2816, 128},
                             {140, 7168, 256},  {140, 24576, 128}, {140, 36864, 128}, {40, 200, 4224},
                             {40, 648, 5120}};
  if (small()) cases = {{140, 104, 48}, {140, 136, 576}, {140, 136, 384}, {9, 24, 4224}};
  uint64_t seed = 1;
  for (const Case& c : cases) {
    const std::string what = fmt::format("[{}, {}, {}]", c.rows, c.n, c.k);
    seed += 10;
    const TestWeight weight(seed, 1, c.n, c.k, seed / 10 % 2 == 0);
    const TestRows x(seed + 5, c.rows, c.k);
    const std::vector<float> whole = product(*stream, x.matrix, weight.weight, false);
    double worst = 0.0;
    for (int64_t r = 0; r < c.rows; ++r) {
      for (int64_t n = 0; n < c.n; ++n) {
        double sum = 0.0;
        double magnitude = 0.0;
        for (int64_t k = 0; k < c.k; ++k) {
          const double value = static_cast<double>(x.values[static_cast<size_t>(r * c.k + k)]) *
                               weight.values[static_cast<size_t>(n * c.k + k)] *
                               x.host_scales[static_cast<size_t>(r * blocks_of(c.k) + k / kQuantizeBlock)] *
                               weight.scale(n, k / kQuantizeBlock);
          sum += value;
          magnitude += std::abs(value);
        }
        const float got = whole[static_cast<size_t>(r * c.n + n)];
        worst = std::max(worst, std::abs(got - sum) / magnitude);
        ASSERT_LE(std::abs(got - sum), kTolerance * magnitude)
            << what << " row " << r << " column " << n << ": got " << got << ", expected " << sum;
      }
    }
    fmt::print("{} worst error {:.3g} of the sum of magnitudes\n", what, worst);
    const std::vector<float> whole_swiglu =
        c.n % 16 == 0 ? product(*stream, x.matrix, weight.weight, true) : std::vector<float>();
    for (const int64_t rows : {1, 7, 8, 9, 16, 17, 31, 33, 64, 65, 96, 128, 130, 257}) {
      if (rows > c.rows) continue;
      if (c.n % 16 == 0) {
        const std::vector<float> got = product(*stream, x.matrix.first_rows(rows), weight.weight, true);
        DeviceArray<uint16_t> y(rows * c.n / 2);
        linear(*stream, {.x = {},
                         .y = Matrix(y.data(), DType::kBF16, rows, c.n / 2),
                         .weight = &weight.weight,
                         .swiglu = true,
                         .x8 = x.matrix.first_rows(rows)});
        ASSERT_TRUE(stream->synchronize().ok()) << what;
        const std::vector<uint16_t> words = y.get();
        for (size_t i = 0; i < got.size(); ++i) {
          ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(whole_swiglu[i]))
              << what << ": swiglu of " << rows << " and " << c.rows << " rows differs at " << i;
          ASSERT_EQ(words[i], device::f32_to_bf16(got[i]))
              << what << " swiglu bf16, " << rows << " rows, at " << i;
        }
      }
      const std::vector<float> got = product(*stream, x.matrix.first_rows(rows), weight.weight, false);
      for (size_t i = 0; i < got.size(); ++i) {
        ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(whole[i]))
            << what << ": row " << i / static_cast<size_t>(c.n) << " column " << i % static_cast<size_t>(c.n)
            << " differs between " << rows << " and " << c.rows << " rows: " << got[i] << ", " << whole[i];
      }
      DeviceArray<uint16_t> y(rows * c.n);
      linear(*stream, {.x = {},
                       .y = Matrix(y.data(), DType::kBF16, rows, c.n),
                       .weight = &weight.weight,
                       .x8 = x.matrix.first_rows(rows)});
      ASSERT_TRUE(stream->synchronize().ok()) << what;
      const std::vector<uint16_t> rounded = y.get();
      for (size_t i = 0; i < rounded.size(); ++i)
        ASSERT_EQ(rounded[i], device::f32_to_bf16(whole[i]))
            << what << " bf16, " << rows << " rows, at " << i;
    }
  }
}

TEST(CudaLinearW8A8, GroupsGiveTheirRowsBits) {
  auto* stream = test_stream();
  if (stream == nullptr || !stream->gpu().hopper()) GTEST_SKIP() << "no Hopper GPU";
  const int64_t k = 320;
  for (const int64_t scale : {1, 5, 12, 40, 150, 151}) {  // rows a group
    if (small() && scale > 12) continue;
    const int64_t groups = small() ? 5 : scale == 1 ? 300 : 24;
    const int64_t n = !small() && scale == 5 ? 1104 : 272;  // more tiles than CTAs
    const TestWeight weight(77, groups, n, k, scale % 2 != 0);
    std::vector<int32_t> offsets{0};
    for (int64_t g = 0; g < groups; ++g) {
      const auto count =
          static_cast<int32_t>(draw(5, g) * 2.0F * static_cast<float>(scale) + static_cast<float>(scale));
      offsets.push_back(offsets.back() + (g % 7 == 3 ? 0 : std::max(0, count)));
    }
    const int64_t rows = offsets.back();
    const TestRows x(9, rows + 5, k);
    std::vector<int32_t> gather(static_cast<size_t>(rows));
    for (int64_t r = 0; r < rows; ++r)
      gather[static_cast<size_t>(r)] = static_cast<int32_t>((r * 37 + 11) % rows);
    const DeviceArray<int32_t> device_offsets(offsets);
    const DeviceArray<int32_t> device_gather(gather);
    for (const bool swiglu : {false, true}) {
      const int64_t columns = swiglu ? n / 2 : n;
      std::vector<std::vector<float>> expected;  // all rows by each group
      for (int64_t g = 0; g < groups; ++g)
        expected.push_back(product(*stream, x.matrix.first_rows(rows), weight.group(g), swiglu));
      for (const bool gathered : {false, true}) {
        DeviceArray<float> y((rows + 5) * columns);
        GroupedLinearArgs args;
        args.linear = {.x = {},
                       .y = Matrix(y.data(), DType::kF32, rows + 5, columns),
                       .weight = &weight.weight,
                       .swiglu = swiglu,
                       .x8 = x.matrix};
        args.offsets = device_offsets.data();
        args.gather = gathered ? device_gather.data() : nullptr;
        args.max_rows = rows + 5;
        grouped_linear(*stream, args);
        ASSERT_TRUE(stream->synchronize().ok()) << stream->status().error().message;
        const std::vector<float> got = y.get();
        for (int64_t g = 0; g < groups; ++g) {
          for (int64_t r = offsets[static_cast<size_t>(g)]; r < offsets[static_cast<size_t>(g) + 1]; ++r) {
            const int64_t from = gathered ? gather[static_cast<size_t>(r)] : r;
            for (int64_t c = 0; c < columns; ++c) {
              ASSERT_EQ(std::bit_cast<uint32_t>(got[static_cast<size_t>(r * columns + c)]),
                        std::bit_cast<uint32_t>(
                            expected[static_cast<size_t>(g)][static_cast<size_t>(from * columns + c)]))
                  << "scale " << scale << " swiglu " << swiglu << " gathered " << gathered << " group " << g
                  << " row " << r << " column " << c;
            }
          }
        }
        for (size_t i = static_cast<size_t>(rows * columns); i < got.size(); ++i)
          ASSERT_TRUE(std::isnan(got[i])) << "wrote past the rows";
      }
    }
  }
}

// A dense product in the launch of the groups' has the bits that it has alone, and so have theirs.
TEST(CudaLinearW8A8, ADenseProductGoesBesideGroups) {
  auto* stream = test_stream();
  if (stream == nullptr || !stream->gpu().hopper()) GTEST_SKIP() << "no Hopper GPU";
  const int64_t groups = 24;
  struct Case {
    int64_t k, n, other_k;
  };
  // Wider and narrower than the groups' tiles, of a longer sum and of a shorter one, as few blocks of k as a
  // stage has and many.
  for (const auto& [k, n, other_k] : {Case{320, 1104, 576},
                                      {320, 48, 128},
                                      {320, 9008, 320},
                                      {512, 1104, 1664},
                                      {7168, 48, 7168},
                                      {1664, 4096, 896}}) {
    if (small() && (n > 1104 || k + other_k > 2500)) continue;
    const TestWeight weight(91, groups, 272, k, false);
    const TestWeight other(92, 1, n, other_k, false);
    for (const int64_t tokens : {1, 5, 8, 9, 16}) {
      for (const bool swiglu : {false, true}) {
        for (const bool early : {false, true}) {
          const int64_t rows = std::min<int64_t>(tokens * 6, groups * 8);
          std::vector<int32_t> offsets{0};
          for (int64_t g = 0; g < groups; ++g)
            offsets.push_back(static_cast<int32_t>(g + 1 == groups ? rows : rows * (g + 1) / groups / 2));
          const DeviceArray<int32_t> device_offsets(offsets);
          const TestRows x(93, rows, k), other_x(94, tokens, other_k);
          const int64_t columns = swiglu ? 136 : 272;
          const auto run = [&](const LinearArgs* beside) {
            DeviceArray<float> y(rows * columns);
            grouped_linear(*stream, {.linear = {.x = {},
                                                .y = Matrix(y.data(), DType::kF32, rows, columns),
                                                .weight = &weight.weight,
                                                .swiglu = swiglu,
                                                .x8 = x.matrix},
                                     .offsets = device_offsets.data(),
                                     .max_rows = rows,
                                     .beside = beside,
                                     .beside_early = early});
            EXPECT_TRUE(stream->synchronize().ok()) << stream->status().error().message;
            return y.get();
          };
          const int64_t other_columns = swiglu ? n / 2 : n;
          DeviceArray<float> got(tokens * other_columns);
          const LinearArgs beside{.x = {},
                                  .y = Matrix(got.data(), DType::kF32, tokens, other_columns),
                                  .weight = &other.weight,
                                  .swiglu = swiglu,
                                  .x8 = other_x.matrix};
          const std::vector<float> alone = run(nullptr), together = run(&beside);
          for (size_t i = 0; i < alone.size(); ++i) {
            ASSERT_EQ(std::bit_cast<uint32_t>(alone[i]), std::bit_cast<uint32_t>(together[i]))
                << "groups, " << tokens << " tokens beside, at " << i;
          }
          const std::vector<float> want = product(*stream, other_x.matrix, other.weight, swiglu);
          const std::vector<float> values = got.get();
          for (size_t i = 0; i < want.size(); ++i) {
            ASSERT_EQ(std::bit_cast<uint32_t>(values[i]), std::bit_cast<uint32_t>(want[i]))
                << n << " x " << other_k << ", " << tokens << " tokens, swiglu " << swiglu << ", at " << i;
          }
        }
      }
    }
  }
}

// Of the product's first columns; and once more with what the kernels leave behind them.
TEST(CudaLinearW8A8, ANormAfterItGivesTheBitsOfBoth) {
  auto* stream = test_stream();
  if (stream == nullptr || !stream->gpu().hopper()) GTEST_SKIP() << "no Hopper GPU";
  struct Case {
    int64_t n, k, width;
  };
  // The last two, and two rows, are not for the kernel that does both.
  std::vector<Case> cases = {{2112, 7168, 1536}, {2112, 5120, 1536}, {1600, 2560, 1536}, {2048, 4096, 2048},
                             {1216, 7168, 1200}, {2112, 7168, 512},  {7168, 2048, 1536}};
  if (small()) cases = {{1600, 2560, 1536}};
  const int64_t most = 2;
  uint64_t seed = 1000;
  for (const Case& c : cases) {
    seed += 10;
    const TestWeight weight(seed, 1, c.n, c.k, seed / 10 % 2 == 0);
    std::vector<float> host_norm(static_cast<size_t>(c.width));
    for (size_t i = 0; i < host_norm.size(); ++i)
      host_norm[i] = 1.0F + draw(seed + 3, static_cast<int64_t>(i));
    const DeviceArray<float> norm_weight(host_norm);
    DeviceArray<uint16_t> y(most * c.n), normed(most * c.width);
    DeviceArray<uint8_t> values(most * c.width);
    DeviceArray<float> scales(blocks_of(c.width) * most);
    for (int64_t rows = 1; rows <= most; ++rows) {
      const TestRows x(seed + 5, rows, c.k);
      struct Results {
        std::vector<uint16_t> y, normed;
        std::vector<uint8_t> values;
        std::vector<float> scales;
      };
      const auto run = [&](bool apart) {
        for (DeviceArray<uint16_t>* array : {&normed, &y})
          stream->fill(array->data(), 0xff, static_cast<size_t>(2 * array->size()));
        stream->fill(values.data(), 0xff, static_cast<size_t>(values.size()));
        stream->fill(scales.data(), 0x11, static_cast<size_t>(4 * scales.size()));
        const LinearArgs product{
            .x = {}, .y = {y.data(), DType::kBF16, rows, c.n}, .weight = &weight.weight, .x8 = x.matrix};
        const RmsNormArgs norm{.x = product.y.slice(0, c.width),
                               .y = {normed.data(), DType::kBF16, rows, c.width},
                               .weight = norm_weight.data(),
                               .eps = 1e-6F,
                               .rounded = {values.data(), scales.data(), rows, c.width, c.width, most}};
        if (apart) {
          linear(*stream, product);
          rms_norm(*stream, norm);
        } else {
          linear_and_norm(*stream, product, norm);
        }
        EXPECT_TRUE(stream->synchronize().ok()) << stream->status().error().message;
        return Results{y.get(), normed.get(), values.get(), scales.get()};
      };
      const Results expected = run(true);
      for (int turn = 0; turn < 2; ++turn) {
        const Results got = run(false);
        const auto same = [&](const auto& a, const auto& b, const char* what) {
          for (size_t i = 0; i < a.size(); ++i) {
            ASSERT_EQ(a[i], b[i]) << "[" << rows << ", " << c.n << ", " << c.k << "] " << what << " " << i
                                  << " of the norm of " << c.width;
          }
        };
        same(got.y, expected.y, "product");
        same(got.normed, expected.normed, "value");
        same(got.values, expected.values, "rounded value");
        same(got.scales, expected.scales, "scale");
      }
    }
  }
}

// A kernel that begins while those ahead of it still run takes what they leave, not what was there before:
// the experts' two products and the rounding between them, queued at once behind something long, and one by
// one.
TEST(CudaLinearW8A8, AProductThatBeginsEarlyWaitsForWhatItReads) {
  auto* stream = test_stream();
  if (stream == nullptr || !stream->gpu().hopper()) GTEST_SKIP() << "no Hopper GPU";
  const int64_t groups = 24, hidden = 576, inner = 384, before = small() ? 40 : 1000;
  const TestWeight long_weight(41, 1, 9008, 640, false);
  const TestRows long_x(42, before, 640);
  const DeviceArray<float> long_y(before * 9008);
  const TestWeight up(43, groups, 2 * inner, hidden, false), down(44, groups, hidden, inner, false);
  const TestWeight shared_up(45, 1, 2 * inner, hidden, false), shared_down(46, 1, hidden, inner, false);
  for (const int64_t tokens : {1, 4, 16}) {
    const int64_t copies = tokens * 6, all = copies + tokens;
    std::vector<int32_t> offsets{0}, gather;
    for (int64_t g = 1; g <= groups; ++g) offsets.push_back(static_cast<int32_t>(copies * g / groups));
    for (int64_t i = 0; i < copies; ++i) gather.push_back(static_cast<int32_t>(i % tokens));
    const DeviceArray<int32_t> device_offsets(offsets), device_gather(gather);
    const TestRows x(47, tokens, hidden);
    // Poisoned before each run.
    DeviceArray<uint16_t> inner_rows(all * inner), y(all * hidden);
    DeviceArray<uint8_t> values(all * inner);
    DeviceArray<float> scales(blocks_of(inner) * all);
    const QuantizedMatrix rounded{values.data(), scales.data(), all, inner, inner, all};
    const auto rows_of = [&](DeviceArray<uint16_t>& rows, int64_t first, int64_t count, int64_t columns) {
      return Matrix(rows.data() + first * columns, DType::kBF16, count, columns);
    };
    const auto run = [&](bool at_once) {
      for (DeviceArray<uint16_t>* rows : {&inner_rows, &y})
        stream->fill(rows->data(), 0xff, 2 * rows->size());
      stream->fill(values.data(), 0xff, values.size());
      stream->fill(scales.data(), 0xff, 4 * scales.size());
      EXPECT_TRUE(stream->synchronize().ok());
      const auto next = [&] {
        if (!at_once) EXPECT_TRUE(stream->synchronize().ok());
      };
      linear(*stream, {.x = {},
                       .y = Matrix(long_y.data(), DType::kF32, before, 9008),
                       .weight = &long_weight.weight,
                       .x8 = long_x.matrix});
      next();
      const LinearArgs beside_up{.x = {},
                                 .y = rows_of(inner_rows, copies, tokens, inner),
                                 .weight = &shared_up.weight,
                                 .swiglu = true,
                                 .x8 = x.matrix};
      grouped_linear(*stream, {.linear = {.x = {},
                                          .y = rows_of(inner_rows, 0, copies, inner),
                                          .weight = &up.weight,
                                          .swiglu = true,
                                          .x8 = x.matrix},
                               .offsets = device_offsets.data(),
                               .gather = device_gather.data(),
                               .max_rows = copies,
                               .beside = &beside_up});
      next();
      quantize(*stream, {.x = rows_of(inner_rows, 0, all, inner), .y = rounded});
      next();
      const LinearArgs beside_down{.x = {},
                                   .y = rows_of(y, copies, tokens, hidden),
                                   .weight = &shared_down.weight,
                                   .x8 = rounded.row_range(copies, all)};
      grouped_linear(*stream, {.linear = {.x = {},
                                          .y = rows_of(y, 0, copies, hidden),
                                          .weight = &down.weight,
                                          .x8 = rounded.first_rows(copies)},
                               .offsets = device_offsets.data(),
                               .max_rows = copies,
                               .beside = &beside_down,
                               .offsets_early = true});
      EXPECT_TRUE(stream->synchronize().ok()) << stream->status().error().message;
      return y.get();
    };
    const std::vector<uint16_t> want = run(false), got = run(true);
    for (size_t i = 0; i < want.size(); ++i) {
      ASSERT_NE(want[i], 0xffff) << i;
      ASSERT_EQ(got[i], want[i]) << tokens << " tokens, row " << i / static_cast<size_t>(hidden) << " column "
                                 << i % static_cast<size_t>(hidden);
    }
  }
}

}  // namespace
}  // namespace fathom::ops::cuda

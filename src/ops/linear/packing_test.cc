// The packed weight holds exactly what the checkpoint holds, wherever the layout puts it.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "ops/linear/testing.h"

namespace fathom::ops {
namespace {

using device::Arena;
using device::DType;
using testing::StoredWeight;

const device::Target kTarget;

class PackDtypes : public ::testing::TestWithParam<DType> {};

TEST_P(PackDtypes, KeepsEveryValueAndPadsWithZeros) {
  for (const auto& [n, k] : {std::pair{1, 1}, {16, 32}, {17, 33}, {40, 130}, {150, 300}}) {
    const StoredWeight weight(GetParam(), n, k, static_cast<uint64_t>(n * 1000 + k));
    Arena arena;
    const auto packed = pack_linear(kTarget, Compute::kF32, {&weight.source(), 1}, arena);
    ASSERT_TRUE(packed.ok()) << packed.error().message;
    EXPECT_EQ(packed->n, n);
    EXPECT_EQ(packed->k, k);
    for (int64_t row = 0; row < packed->n_padded; ++row) {
      for (int64_t col = 0; col < packed->k_padded; ++col) {
        const float expected = row < n && col < k ? weight.value(row, col) : 0.0F;
        // Scales of the padding are not stored for k past the last block of 128, nor needed.
        if (col >= k && packed->scales != nullptr) continue;
        ASSERT_EQ(packed_value(*packed, row, col), expected) << row << ", " << col;
      }
    }
  }
}

TEST_P(PackDtypes, TransposedAndStackedSourcesLandInTheirColumns) {
  const StoredWeight a(GetParam(), 128, 70, 1);
  const StoredWeight b(GetParam(), 50, 128, 2);
  WeightSource transposed = a.source();
  transposed.transposed = true;
  const WeightSource sources[] = {b.source(), transposed, b.part(3, 20, 0, 128)};
  Arena arena;
  ThreadPool pool(2);
  const auto packed = pack_linear(kTarget, Compute::kF32, sources, arena, &pool);
  ASSERT_TRUE(packed.ok());
  EXPECT_EQ(packed->dtype, GetParam() == DType::kF16 ? DType::kF32 : GetParam());
  ASSERT_EQ(packed->n, 50 + 70 + 17);
  ASSERT_EQ(packed->k, 128);
  for (int64_t k = 0; k < 128; ++k) {
    for (int64_t i = 0; i < 50; ++i) ASSERT_EQ(packed_value(*packed, i, k), b.value(i, k));
    for (int64_t i = 0; i < 70; ++i) ASSERT_EQ(packed_value(*packed, 50 + i, k), a.value(k, i));
    for (int64_t i = 0; i < 17; ++i) ASSERT_EQ(packed_value(*packed, 120 + i, k), b.value(3 + i, k));
  }
}

INSTANTIATE_TEST_SUITE_P(AllDtypes, PackDtypes,
                         ::testing::Values(DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3),
                         [](const auto& info) { return std::string(device::to_string(info.param)); });

TEST(Packing, TellsWhichLinesHoldTinyCodes) {
  for (const auto& [n, k] : {std::pair{1, 1}, {17, 33}, {40, 130}, {150, 700}}) {
    const StoredWeight weight(DType::kF8E4M3, n, k, static_cast<uint64_t>(n));
    Arena arena;
    const auto packed = pack_linear(kTarget, Compute::kBF16, {&weight.source(), 1}, arena).value();
    int64_t with = 0, lines = 0;
    for (int64_t panel = 0; panel < packed.n_padded / 16; ++panel) {
      const float* record = packed.scales + panel * panel_record(k);
      for (int64_t line = 0; line < packed.k_padded / 4; ++line) {
        bool tiny = false;
        for (int64_t c = 16 * panel; c < 16 * panel + 16; ++c) {
          // A value beyond the matrix is 0. 0 and the denormals are below 2^-6.
          for (int64_t i = 4 * line; i < 4 * line + 4; ++i) {
            tiny |= c >= n || i >= k ||
                    std::fabs(packed_value(packed, c, i)) <
                        0x1p-6F * packed.scales[scale_index(k, c, i)] * 0.999F;
          }
        }
        uint32_t word = 0;
        std::memcpy(&word, record + 16 * scale_blocks(k) + line / 32, sizeof(word));
        ASSERT_EQ((word >> line % 32 & 1U) != 0, tiny) << "panel " << panel << " line " << line;
        with += tiny ? 1 : 0;
        ++lines;
      }
    }
    if (n == 150) {
      EXPECT_TRUE(with > lines / 20 && with < lines / 2) << with << " of " << lines;
    }
  }
}

TEST(Packing, RoundsToBf16UnderBf16Compute) {
  const StoredWeight weight(DType::kF32, 20, 40, 3);
  Arena arena;
  const auto packed = pack_linear(kTarget, Compute::kBF16, {&weight.source(), 1}, arena);
  ASSERT_TRUE(packed.ok());
  EXPECT_EQ(packed->dtype, DType::kBF16);
  for (int64_t i = 0; i < 20; ++i) {
    for (int64_t k = 0; k < 40; ++k) {
      EXPECT_EQ(packed_value(*packed, i, k), device::bf16_to_f32(device::f32_to_bf16(weight.value(i, k))));
    }
  }
}

TEST(Packing, MixedStacksBecomeTheWidest) {
  const StoredWeight f8(DType::kF8E4M3, 16, 128, 4);
  const StoredWeight bf16(DType::kBF16, 16, 128, 5);
  const WeightSource sources[] = {f8.source(), bf16.source()};
  Arena arena;
  const auto exact = pack_linear(kTarget, Compute::kF32, sources, arena);
  ASSERT_TRUE(exact.ok());
  EXPECT_EQ(exact->dtype, DType::kF32);
  EXPECT_EQ(packed_value(*exact, 3, 9), f8.value(3, 9));
  EXPECT_EQ(packed_value(*exact, 19, 9), bf16.value(3, 9));
  const auto rounded = pack_linear(kTarget, Compute::kBF16, sources, arena);
  ASSERT_TRUE(rounded.ok());
  EXPECT_EQ(rounded->dtype, DType::kBF16);
}

// A head's rows of kv_b cut inside a block of 128: usable as they are along n, not along k.
TEST(Packing, Fp8CutInsideABlock) {
  const StoredWeight weight(DType::kF8E4M3, 400, 300, 6);
  Arena arena;
  const WeightSource along_n = weight.part(64, 250, 128, 300);
  const auto kept = pack_linear(kTarget, Compute::kBF16, {&along_n, 1}, arena);
  ASSERT_TRUE(kept.ok());
  EXPECT_EQ(kept->dtype, DType::kF8E4M3);
  for (int64_t i = 0; i < along_n.n; ++i) {
    for (int64_t k = 0; k < along_n.k; ++k) {
      ASSERT_EQ(packed_value(*kept, i, k), weight.value(64 + i, 128 + k));
    }
  }
  WeightSource along_k = weight.part(64, 250, 128, 300);
  along_k.transposed = true;  // k = rows 64 .. 249 crosses blocks at places that are not multiples of 128
  const auto widened = pack_linear(kTarget, Compute::kF32, {&along_k, 1}, arena);
  ASSERT_TRUE(widened.ok());
  EXPECT_EQ(widened->dtype, DType::kF32);
  ASSERT_EQ(widened->n, 172);
  ASSERT_EQ(widened->k, 186);
  for (int64_t i = 0; i < widened->n; ++i) {
    for (int64_t k = 0; k < widened->k; ++k) {
      ASSERT_EQ(packed_value(*widened, i, k), weight.value(64 + k, 128 + i));
    }
  }
  WeightSource one_block = weight.part(140, 200, 0, 300);
  one_block.transposed = true;  // all of k in one block: stays FP8
  const auto within = pack_linear(kTarget, Compute::kF32, {&one_block, 1}, arena);
  ASSERT_TRUE(within.ok());
  EXPECT_EQ(within->dtype, DType::kF8E4M3);
  EXPECT_EQ(packed_value(*within, 200, 59), weight.value(199, 200));
}

TEST(Packing, RefusesFp8ThatIsNotANumber) {
  StoredWeight weight(DType::kF8E4M3, 30, 150, 7);
  Arena arena;
  weight.bytes()[5 * 153 + 149] = 0xff;
  for (const Compute compute : {Compute::kF32, Compute::kBF16}) {
    const auto packed = pack_linear(kTarget, compute, {&weight.source(), 1}, arena);
    ASSERT_FALSE(packed.ok());
    EXPECT_EQ(packed.error().code, ErrorCode::kDataLoss);
  }
  weight.bytes()[5 * 153 + 149] = 0;
  weight.scales()[1] = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(pack_linear(kTarget, Compute::kF32, {&weight.source(), 1}, arena).ok());
}

TEST(Packing, Fp8EncoderInvertsTheDecoder) {
  for (int code = 0; code < 256; ++code) {
    if ((code & 0x7f) == 0x7f) continue;
    EXPECT_EQ(f32_to_f8e4m3(device::f8e4m3_to_f32(static_cast<uint8_t>(code))), code);
  }
  EXPECT_EQ(f32_to_f8e4m3(1e9F), 0x7e);
  // Half way between 1 and 1.125, and between 1.125 and 1.25: to the even mantissa.
  EXPECT_EQ(f32_to_f8e4m3(1.0625F), f32_to_f8e4m3(1.0F));
  EXPECT_EQ(f32_to_f8e4m3(1.1875F), f32_to_f8e4m3(1.25F));
}

TEST(RandomLinear, IsAPureFunctionWithTheAskedDeviation) {
  ThreadPool pool(2);
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF8E4M3}) {
    Arena arena;
    const auto a = random_linear(kTarget, Compute::kF32, dtype, 70, 301, 0.02F, 9, arena, &pool);
    const auto b = random_linear(kTarget, Compute::kF32, dtype, 70, 301, 0.02F, 9, arena);
    const auto other = random_linear(kTarget, Compute::kF32, dtype, 70, 301, 0.02F, 10, arena);
    ASSERT_TRUE(a.ok() && b.ok() && other.ok());
    EXPECT_EQ(std::memcmp(a->data, b->data, static_cast<size_t>(a->bytes())), 0);
    EXPECT_NE(std::memcmp(a->data, other->data, static_cast<size_t>(a->bytes())), 0);
    double sum = 0;
    double squares = 0;
    for (int64_t i = 0; i < 70; ++i) {
      for (int64_t k = 0; k < 301; ++k) {
        const double v = packed_value(*a, i, k);
        sum += v;
        squares += v * v;
      }
    }
    // 21070 samples: the mean has deviation 0.02 / 145, the variance's relative one is about 1 %.
    EXPECT_NEAR(sum / 21070, 0.0, 6e-4);
    EXPECT_NEAR(std::sqrt(squares / 21070), 0.02, 6e-4);
  }
}

TEST(RandomLinear, AnElementDependsOnItsPlaceOnly) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF8E4M3}) {
    Arena arena;
    const auto a = random_linear(kTarget, Compute::kF32, dtype, 70, 301, 0.02F, 9, arena);
    const device::Target plain{device::DeviceKind::kCpu, device::Isa::kReference};
    const auto b = random_linear(plain, Compute::kF32, dtype, 35, 201, 0.02F, 9, arena);
    ASSERT_TRUE(a.ok() && b.ok());
    for (int64_t i = 0; i < 35; ++i) {
      for (int64_t k = 0; k < 201; ++k) ASSERT_EQ(packed_value(*a, i, k), packed_value(*b, i, k));
    }
    // Every FP8 value is the nearest to some level; what is padded is zero.
    const auto* bytes = static_cast<const uint8_t*>(b->data);
    int64_t zeros = 0;
    for (int64_t i = 0; i < b->bytes(); ++i) zeros += bytes[i] == 0 ? 1 : 0;
    EXPECT_GE(zeros, (b->n_padded * b->k_padded - 35 * 201) * device::size_of(dtype));
  }
}

TEST(RandomLinear, Fp8ValuesAreTheNearestToTheLevels) {
  Arena arena;
  const auto f32 = random_linear(kTarget, Compute::kF32, DType::kF32, 70, 301, 0.02F, 9, arena);
  const auto f8 = random_linear(kTarget, Compute::kF32, DType::kF8E4M3, 70, 301, 0.02F, 9, arena);
  ASSERT_TRUE(f32.ok() && f8.ok());
  const float scale = f8->scales[0];
  for (int64_t i = 0; i < 70; ++i) {
    for (int64_t k = 0; k < 301; ++k) {
      float value = packed_value(*f32, i, k) / scale;
      if (value == 0) value = 0.25F * 448.0F / 510.0F;  // a quarter of a level: see random_panel.h
      const float nearest = device::f8e4m3_to_f32(f32_to_f8e4m3(value)) * scale;
      ASSERT_EQ(packed_value(*f8, i, k), nearest) << i << ' ' << k;
    }
  }
}

}  // namespace
}  // namespace fathom::ops

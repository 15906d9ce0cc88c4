#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "device/arena.h"
#include "device/cpu/isa.h"
#include "device/dtype.h"
#include "device/launch.h"
#include "device/tensor.h"

namespace fathom::device {
namespace {

TEST(DType, Bf16RoundsToNearestEven) {
  EXPECT_EQ(f32_to_bf16(1.0F), 0x3f80);
  EXPECT_EQ(f32_to_bf16(1.0F + 0x1p-8F), 0x3f80);             // a tie goes to the even neighbour
  EXPECT_EQ(f32_to_bf16(1.0F + 0x1p-8F + 0x1p-20F), 0x3f81);  // just above the tie
  EXPECT_EQ(f32_to_bf16(1.0F + 3 * 0x1p-8F), 0x3f82);
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_EQ(bf16_to_f32(f32_to_bf16(-std::numeric_limits<float>::infinity())),
            -std::numeric_limits<float>::infinity());
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {  // every bf16 that is a number survives the round trip
    const float value = bf16_to_f32(static_cast<bf16>(bits));
    if (std::isnan(value)) continue;
    ASSERT_EQ(f32_to_bf16(value), bits);
  }
}

TEST(DType, F16MatchesItsDefinition) {
  EXPECT_EQ(f16_to_f32(0x3c00), 1.0F);
  EXPECT_EQ(f16_to_f32(0xc000), -2.0F);
  EXPECT_EQ(f16_to_f32(0x0001), 0x1p-24F);
  EXPECT_EQ(f16_to_f32(0x03ff), 1023 * 0x1p-24F);
  EXPECT_EQ(f16_to_f32(0x7bff), 65504.0F);
  EXPECT_EQ(f16_to_f32(0xfc00), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(f16_to_f32(0x7e00)));
}

TEST(DType, F8E4M3MatchesItsDefinition) {
  for (int bits = 0; bits < 256; ++bits) {
    const int exponent = (bits >> 3) & 15;
    const int mantissa = bits & 7;
    const double sign = bits >= 128 ? -1.0 : 1.0;
    const float got = f8e4m3_to_f32(static_cast<uint8_t>(bits));
    if (exponent == 15 && mantissa == 7) {
      EXPECT_TRUE(std::isnan(got));
      continue;
    }
    const double wanted = exponent == 0 ? sign * mantissa * std::ldexp(1.0, -9)
                                        : sign * (1.0 + mantissa / 8.0) * std::ldexp(1.0, exponent - 7);
    EXPECT_EQ(got, wanted) << bits;
  }
}

TEST(Tensor, ViewsRowsAndColumns) {
  std::vector<float> values(12);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const Tensor tensor(values.data(), DType::kF32, {3, 4});
  EXPECT_EQ(describe(tensor), "float32 [3, 4]");
  EXPECT_EQ(tensor.rows(1, 3).row<float>(1)[2], 10.0F);
  const Tensor part = tensor.columns(2, 4);
  EXPECT_EQ(part.row<float>(2)[1], 11.0F);
  check_tensor("x", part, DType::kF32, {-1, 2});
}

TEST(TensorDeathTest, SaysWhatWasExpected) {
  float value = 0;
  const Tensor tensor(&value, DType::kF32, {1, 1});
  EXPECT_DEATH(check_tensor("x", tensor, DType::kF32, {-1, 2}),
               "x: got float32 \\[1, 1\\], expected float32 \\[\\*, 2\\]");
}

TEST(Arena, GivesAlignedZeroedDistinctMemory) {
  Arena arena(1 << 16);
  std::byte* previous = nullptr;
  for (const size_t bytes : {1, 64, 65, 4096, 1 << 17}) {  // the last is larger than a block
    std::byte* piece = *arena.allocate(bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(piece) % 64, 0U);
    for (size_t i = 0; i < bytes; ++i) ASSERT_EQ(piece[i], std::byte{0});
    std::memset(piece, 0xff, bytes);
    EXPECT_NE(piece, previous);
    previous = piece;
  }
}

TEST(Arena, RefusesWhatTheSystemCannotMap) {
  const auto refused = Buffer::allocate(size_t{1} << 60);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
  EXPECT_GT(available_memory(), size_t{1} << 20);
}

TEST(Isa, ChoosesWhatTheProcessorHas) {
  EXPECT_EQ(*choose_isa("auto"), detect_isa());
  EXPECT_EQ(*choose_isa("reference"), Isa::kReference);
  EXPECT_EQ(choose_isa("sse9").error().code, ErrorCode::kInvalidArgument);
  if (detect_isa() < Isa::kAmx) {
    EXPECT_EQ(choose_isa("amx").error().code, ErrorCode::kUnsupported);
  }
}

TEST(Launch, ScratchGrowsAndStays) {
  ThreadPool pool(2);
  Launch launch(pool);
  std::byte* first = launch.scratch(1, 1000);
  EXPECT_EQ(launch.scratch(1, 1000), first);
  EXPECT_EQ(launch.scratch(1, 10), first);
  std::byte* larger = launch.scratch(1, 1 << 20);
  std::memset(larger, 1, 1 << 20);
  EXPECT_NE(launch.scratch(0, 64), larger);
  EXPECT_NE(launch.shared_scratch(64), larger);
}

}  // namespace
}  // namespace fathom::device

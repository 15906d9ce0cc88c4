#include "weights/weight_supply.h"

#include <gtest/gtest.h>

#include <cmath>

#include "weights/testing.h"

namespace fathom::weights {
namespace {

using device::DType;
using ops::Compute;

struct Fixture {
  ThreadPool pool{2};
  device::Arena arena;
  device::Target target;
  int64_t taken = 0;
  SupplyContext context() {
    return {target, &arena, &pool, [this](int64_t bytes) { taken += bytes; }};
  }
};

Part part(const std::string& name, int64_t n, int64_t k) {
  Part result;
  result.name = name;
  result.n = n;
  result.k = k;
  return result;
}

// A tensor whose data starts at an odd byte of the file must be read as well as an aligned one.
TEST(CheckpointSupply, StacksSlicesAndTransposesEvenUnaligned) {
  for (const std::string pad : {"", " ", "  ", "   "}) {
    const testing::TempFolder folder;
    const std::string header = R"({"a":{"dtype":"F32","shape":[4,3],"data_offsets":[0,48]},)" + pad +
                               R"("b":{"dtype":"BF16","shape":[2,3],"data_offsets":[48,60]}})";
    auto bytes = testing::image(header, 60);
    auto* data = bytes.data() + bytes.size() - 60;
    for (int i = 0; i < 12; ++i) {
      const auto value = static_cast<float>(i);
      std::memcpy(data + 4 * i, &value, 4);
    }
    for (int i = 0; i < 6; ++i) {
      const auto value = device::f32_to_bf16(static_cast<float>(100 + i));
      std::memcpy(data + 48 + 2 * i, &value, 2);
    }
    folder.write("model.safetensors", bytes);
    const auto checkpoint = Checkpoint::open(folder.path()).value();
    Fixture fixture;
    const auto supply = make_checkpoint_supply(checkpoint, fixture.context());

    const Part both[] = {part("a", 4, 3), part("b", 2, 3)};
    const auto stacked = supply->linear(Compute::kF32, both).value();
    ASSERT_EQ(stacked.n, 6);
    EXPECT_EQ(ops::packed_value(stacked, 3, 2), 11.0F);
    EXPECT_EQ(ops::packed_value(stacked, 5, 1), 104.0F);

    Part rows = part("a", 4, 3);
    rows.first_row = 1;
    rows.rows = 2;
    rows.transposed = true;
    const auto turned = supply->linear(Compute::kF32, {&rows, 1}).value();
    ASSERT_EQ(turned.n, 3);
    ASSERT_EQ(turned.k, 2);
    EXPECT_EQ(ops::packed_value(turned, 2, 0), 5.0F);
    EXPECT_EQ(ops::packed_value(turned, 0, 1), 6.0F);

    const float* vector = supply->vector("b", 6, 0, 0).value();
    EXPECT_EQ(vector[5], 105.0F);
    const auto table = supply->table(part("a", 4, 3)).value();
    EXPECT_EQ(table.dtype, DType::kF32);
    EXPECT_EQ(table.row<float>(2)[1], 7.0F);
    EXPECT_GT(fixture.taken, 0);
  }
}

TEST(CheckpointSupply, ACheckpointCutShortAfterItWasOpenedIsAnError) {
  constexpr size_t kBytes = 256 * 64 * 4;
  const testing::TempFolder folder;
  folder.write("model.safetensors",
               testing::image(R"({"a":{"dtype":"F32","shape":[256,64],"data_offsets":[0,65536]}})", kBytes));
  const auto checkpoint = Checkpoint::open(folder.path()).value();
  Fixture fixture;
  const auto supply = make_checkpoint_supply(checkpoint, fixture.context());
  EXPECT_TRUE(supply->table(part("a", 256, 64)).ok());
  std::filesystem::resize_file(folder.path() + "/model.safetensors", 4096);
  const Part a = part("a", 256, 64);
  for (const auto& failure :
       {supply->linear(Compute::kF32, {&a, 1}).error(), supply->table(part("a", 256, 64)).error(),
        supply->vector("a", 64, 0, 0).error()}) {
    EXPECT_EQ(failure.code, ErrorCode::kDataLoss);
    EXPECT_NE(failure.message.find("model.safetensors: had 65"), std::string::npos) << failure.message;
    EXPECT_NE(failure.message.find("has 4096 now"), std::string::npos) << failure.message;
  }
}

std::unique_ptr<WeightSupply> random_supply(Fixture& fixture, uint64_t seed, DType dtype) {
  return make_random_supply(
      seed, [dtype](std::string_view) { return dtype; }, fixture.context());
}

TEST(RandomSupply, HasTheDeviationItWasAskedFor) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF8E4M3}) {
    for (const bool shared : {false, true}) {
      Fixture fixture;
      const auto supply = random_supply(fixture, 1, dtype);
      Part big = part("w", 256, 256);
      big.gain = 2.0F;
      big.shared = shared;
      const auto packed = supply->linear(Compute::kF32, {&big, 1}).value();
      EXPECT_EQ(packed.dtype, dtype);
      double sum = 0, squares = 0;
      for (int64_t i = 0; i < big.n; ++i) {
        for (int64_t j = 0; j < big.k; ++j) {
          const double value = ops::packed_value(packed, i, j);
          sum += value;
          squares += value * value;
        }
      }
      const double count = 256.0 * 256.0;
      EXPECT_NEAR(sum / count, 0.0, 0.002);
      EXPECT_NEAR(std::sqrt(squares / count), 2.0 / 16.0, 0.005) << to_string(dtype) << shared;
    }
  }
}

// Absorbed heads must be parts of the same kv_b that un-absorbed attention uses.
TEST(RandomSupply, SharedMatricesAgree) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF8E4M3}) {
    Fixture fixture;
    const auto supply = random_supply(fixture, 5, dtype);
    Part whole = part("kv_b", 256, 128);
    whole.shared = true;
    const auto all = supply->linear(Compute::kF32, {&whole, 1}).value();
    Part head = whole;
    head.first_row = 128;
    head.rows = 128;
    head.transposed = true;
    const auto turned = supply->linear(Compute::kF32, {&head, 1}).value();
    for (int64_t i = 0; i < 128; ++i) {
      for (int64_t j = 0; j < 128; ++j) {
        ASSERT_EQ(ops::packed_value(turned, j, i), ops::packed_value(all, 128 + i, j)) << to_string(dtype);
      }
    }
  }
}

TEST(RandomSupply, IsAFunctionOfSeedAndName) {
  Fixture fixture;
  const Part w = part("w", 64, 64);
  const Part v = part("v", 64, 64);
  const auto value = [&](uint64_t seed, const Part& which) {
    return ops::packed_value(
        random_supply(fixture, seed, DType::kBF16)->linear(Compute::kBF16, {&which, 1}).value(), 7, 9);
  };
  EXPECT_EQ(value(1, w), value(1, w));
  EXPECT_NE(value(1, w), value(2, w));
  EXPECT_NE(value(1, w), value(1, v));
}

}  // namespace
}  // namespace fathom::weights

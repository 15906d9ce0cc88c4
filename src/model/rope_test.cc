// Numbers of transformers' DeepseekV2/V3RotaryEmbedding, printed with nine digits.
#include "model/rope.h"

#include <gtest/gtest.h>

namespace fathom::model {
namespace {

ModelConfig config_with(const RopeConfig& rope) {
  ModelConfig config;
  config.nope_dim = 128;
  config.rope_dim = 64;
  config.max_positions = 163840;
  config.rope = rope;
  return config;
}

RopeConfig v3_rope() {
  RopeConfig rope;
  rope.yarn = true;
  rope.theta = 10000;
  rope.factor = 40;
  rope.original_positions = 4096;
  rope.mscale = 1.0;
  rope.mscale_all_dim = 1.0;
  return rope;
}

void expect_frequencies(const ModelConfig& config, const std::vector<int>& at,
                        const std::vector<double>& expected) {
  const auto frequencies = rope_frequencies(config);
  ASSERT_EQ(frequencies.size(), static_cast<size_t>(config.rope_dim / 2));
  for (size_t i = 0; i < at.size(); ++i) {
    EXPECT_NEAR(frequencies[static_cast<size_t>(at[i])] / expected[i], 1.0, 2e-7) << "pair " << at[i];
  }
}

const std::vector<int> kPairs{0, 1, 8, 12, 16, 20, 24, 31};

TEST(Rope, V3) {
  const ModelConfig config = config_with(v3_rope());
  expect_frequencies(config, kPairs,
                     {1, 0.749894202, 0.100000001, 0.0268793609, 0.00550000044, 0.000790569407,
                      2.49999994e-05, 3.33380353e-06});
  EXPECT_DOUBLE_EQ(rope_attention_factor(config.rope), 1.0);
  EXPECT_NEAR(softmax_scale(config), 0.1352337788608801, 1e-15);

  ThreadPool pool(2);
  const auto table = make_rope_table(config, 163840, pool);
  EXPECT_EQ(table.half, 32);
  const auto at = [&](int64_t position, int64_t pair) { return static_cast<size_t>(position * 32 + pair); };
  EXPECT_NEAR(table.cos[at(4097, 0)], 0.934771955F, 2e-7);
  EXPECT_NEAR(table.cos[at(4097, 8)], 0.274268627F, 2e-5);
  EXPECT_NEAR(table.cos[at(4097, 16)], -0.856496036F, 2e-6);
  EXPECT_NEAR(table.sin[at(163839, 0)], -0.97350055F, 2e-7);
  EXPECT_NEAR(table.sin[at(163839, 31)], 0.51944989F, 2e-6);
}

TEST(Rope, DifferentMscales) {
  RopeConfig rope = v3_rope();
  rope.theta = 50000;
  rope.mscale = 0.707;
  rope.mscale_all_dim = 1.4;
  const ModelConfig config = config_with(rope);
  expect_frequencies(config, kPairs,
                     {1, 0.713111103, 0.0668740347, 0.0116732027, 0.00156524754, 2.89123745e-05,
                      7.47674403e-06, 7.01152999e-07});
  EXPECT_NEAR(rope_attention_factor(rope), 0.8314217380159514, 1e-15);
  EXPECT_NEAR(softmax_scale(config), 0.1659593166227992, 1e-15);
  ThreadPool pool(1);
  const auto table = make_rope_table(config, 4098, pool);
  EXPECT_NEAR(table.cos[4097 * 32 + 31], 0.831418335F, 2e-7);
}

TEST(Rope, WithoutMscales) {
  RopeConfig rope = v3_rope();
  rope.mscale = rope.mscale_all_dim = 0.0;
  EXPECT_NEAR(rope_attention_factor(rope), 1.3688879454113936, 1e-15);
  EXPECT_NEAR(softmax_scale(config_with(rope)), 0.07216878364870322, 1e-16);
}

TEST(Rope, TinyHeads) {
  RopeConfig rope = v3_rope();
  rope.original_positions = 32;
  rope.mscale = rope.mscale_all_dim = 0.707;
  ModelConfig config = config_with(rope);
  config.rope_dim = 8;
  config.nope_dim = 16;
  expect_frequencies(config, {0, 1, 2, 3}, {1, 0.00249999994, 0.000250000012, 2.49999994e-05});
  EXPECT_NEAR(softmax_scale(config), 0.3244810821936116, 1e-15);
}

TEST(Rope, Unstretched) {
  const ModelConfig config = config_with({});
  expect_frequencies(config, kPairs,
                     {1, 0.749894202, 0.100000001, 0.0316227786, 0.00999999978, 0.00316227786, 0.00100000005,
                      0.00013335215});
  EXPECT_EQ(rope_attention_factor(config.rope), 1.0);
}

}  // namespace
}  // namespace fathom::model

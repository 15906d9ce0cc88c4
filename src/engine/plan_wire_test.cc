// Steps and masks as bytes come back as they were, and no bytes do harm.
#include "engine/plan_wire.h"

#include <gtest/gtest.h>

#include <random>

#include "engine/masks_testing.h"

namespace fathom::engine {
namespace {

constexpr ExecutorLimits kLimits{.max_slots = 8,
                                 .num_pages = 64,
                                 .page_size = 16,
                                 .max_context = 512,
                                 .vocab_size = 1000,
                                 .max_step_tokens = 256,
                                 .max_drafts = 3};

std::vector<int32_t> numbers(std::mt19937& random, unsigned most, unsigned end) {
  std::vector<int32_t> values(random() % (most + 1));
  for (int32_t& value : values) value = static_cast<int32_t>(random() % end);
  return values;
}

BatchPlan random_plan(std::mt19937& random) {
  const auto real = [&] { return static_cast<float>(random() % 1000) / 500.0F; };
  BatchPlan plan;
  plan.step = random();
  for (int32_t slot = 0; slot < 8; ++slot) {
    if (random() % 2 == 0) {
      BatchPlan::Open& open = plan.open.emplace_back();
      open.slot = slot;
      SamplingParams& s = open.init.sampling;
      for (float* value : {&s.temperature, &s.top_p, &s.min_p, &s.repetition_penalty, &s.frequency_penalty,
                           &s.presence_penalty}) {
        *value = real();
      }
      s.top_k = static_cast<int32_t>(random() % 50);
      for (unsigned i = random() % 4; i > 0; --i) s.logit_bias.emplace_back(random() % 1000, real());
      s.thinking = {static_cast<int32_t>(random() % 9), 5, 6, -1, 2};
      s.max_new_tokens = static_cast<int32_t>(random() % 99);
      s.min_new_tokens = static_cast<int32_t>(random() % 9);
      s.stop_token_ids = numbers(random, 3, 1000);
      s.ignore_eos = random() % 2 == 0;
      s.seed = (uint64_t{random()} << 32) | random();
      open.init.logprobs = {random() % 2 == 0, static_cast<int32_t>(random() % 5), -1,
                            numbers(random, 4, 1000)};
      open.init.prompt = numbers(random, 60, 1000);
      open.init.output = numbers(random, 9, 1000);
      if (random() % 3 == 0) open.init.mask = std::make_shared<SumMask>(-1, 2);
      open.pages = numbers(random, 8, 64);
    }
    BatchRow& row = plan.rows.emplace_back();
    row.slot = slot;
    row.mode = random() % 2 == 0 ? RowMode::kExtend : RowMode::kDecode;
    row.start = static_cast<int32_t>(random() % 400);
    row.tokens = numbers(random, 20, 1000);
    row.new_pages = numbers(random, 4, 64);
    row.sample = random() % 2 == 0;
    row.drafts = static_cast<int32_t>(random() % 4);
    row.prompt_logprob_start = static_cast<int32_t>(random() % 9) - 1;
    row.next_prompt_token = static_cast<int32_t>(random() % 1000) - 1;
  }
  return plan;
}

TEST(PlanWire, AStepComesBackAsItWas) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    const BatchPlan plan = random_plan(random);
    const std::string bytes = encode_step(round % 3, plan, round % 2 == 0);
    const auto back = parse_engine_message(bytes, 3, kLimits);
    ASSERT_TRUE(back.ok()) << back.error().message;
    ASSERT_TRUE(back->step.has_value());
    EXPECT_EQ(back->step->group, round % 3);
    EXPECT_EQ(back->step->eager, round % 2 == 0);
    ASSERT_EQ(back->step->plan.open.size(), plan.open.size());
    for (size_t i = 0; i < plan.open.size(); ++i)
      EXPECT_EQ(back->step->plan.open[i].init.mask != nullptr, plan.open[i].init.mask != nullptr);
    // All that travels does so again.
    EXPECT_EQ(encode_step(back->step->group, back->step->plan, back->step->eager), bytes);
  }
}

TEST(PlanWire, MasksComeBackAsTheyWere) {
  std::vector<MaskRow> rows(3);
  rows[1] = {true, std::vector<uint64_t>(num_mask_words(kLimits.vocab_size), 0x0f0f)};
  const auto back = parse_engine_message(encode_masks(1, 77, rows), 3, kLimits);
  ASSERT_TRUE(back.ok() && back->masks.has_value());
  EXPECT_EQ(back->masks->group, 1);
  EXPECT_EQ(back->masks->step, 77U);
  ASSERT_EQ(back->masks->rows.size(), 3U);
  EXPECT_EQ(back->masks->rows[1].allowed, rows[1].allowed);
  EXPECT_FALSE(back->masks->rows[2].constrains);
  rows[1].allowed.pop_back();
  EXPECT_FALSE(parse_engine_message(encode_masks(1, 77, rows), 3, kLimits).ok());
}

TEST(PlanWire, APassComesBackAsItWas) {
  const PassBoard::Pass pass{.graph_rows = 8, .width = 4, .rows = 8, .places = 32};
  const std::vector<bool> idle{true, false, true};
  const auto back = parse_engine_message(encode_pass_begun(pass, idle), 3, kLimits);
  ASSERT_TRUE(back.ok() && back->pass.has_value());
  EXPECT_EQ(back->pass->pass, pass);
  EXPECT_EQ(back->pass->idle, idle);
  EXPECT_FALSE(parse_engine_message(encode_pass_begun(pass, idle), 2, kLimits).ok());
  for (const PassBoard::Pass& wrong :
       {PassBoard::Pass{.width = 5}, {.width = 0}, {.places = 257}, {.rows = -1}})
    EXPECT_FALSE(parse_engine_message(encode_pass_begun(wrong, idle), 3, kLimits).ok());
}

TEST(PlanWire, WhatIsOutsideTheLimitsIsRefused) {
  std::mt19937 random(4);
  const BatchPlan good = random_plan(random);
  const auto refused = [&](const auto& spoil) {
    BatchPlan plan = good;
    spoil(plan);
    return !parse_engine_message(encode_step(0, plan, false), 3, kLimits).ok();
  };
  EXPECT_FALSE(refused([](BatchPlan&) {}));
  EXPECT_TRUE(refused([](BatchPlan& p) { p.rows[0].slot = 8; }));
  EXPECT_TRUE(refused([](BatchPlan& p) { p.rows[1].slot = p.rows[0].slot; }));
  EXPECT_TRUE(refused([](BatchPlan& p) { p.rows[0].tokens = {1000}; }));
  EXPECT_TRUE(refused([](BatchPlan& p) { p.rows[0].new_pages = {64}; }));
  EXPECT_TRUE(refused([](BatchPlan& p) { p.rows[0].start = 512; }));
  EXPECT_TRUE(refused([](BatchPlan& p) { p.rows[0].drafts = 4; }));
  EXPECT_TRUE(refused([](BatchPlan& p) { p.rows[0].tokens.assign(300, 1); }));
  EXPECT_TRUE(refused([](BatchPlan& p) { p.rows.clear(); }));
}

TEST(PlanWire, AnyBytesAreTakenWithoutHarm) {
  std::mt19937 random(5);
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = encode_step(0, random_plan(random), false);
    if (round % 2 == 0) bytes.resize(random() % bytes.size());
    for (unsigned i = random() % 6; i > 0 && !bytes.empty(); --i)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    (void)parse_engine_message(bytes, 3, kLimits);
  }
}

}  // namespace
}  // namespace fathom::engine

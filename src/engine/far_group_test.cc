// A group of requests that another node leads: plans go there, and wants, questions for masks and answers
// come back; over sockets, with a leader that computes nothing.
#include "engine/far_group.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "dist/socket_group.h"
#include "dist/testing.h"
#include "engine/masks_testing.h"

namespace fathom::engine {
namespace {

constexpr int32_t kVocab = 1000, kWidth = 4;
constexpr ExecutorLimits kLimits{.max_slots = 4,
                                 .num_pages = 64,
                                 .page_size = 16,
                                 .max_context = 512,
                                 .vocab_size = kVocab,
                                 .max_step_tokens = 256,
                                 .max_drafts = kWidth - 1};

EngineOptions options_of() {
  EngineOptions options;
  options.config.vocab_size = kVocab;
  options.max_running = kLimits.max_slots;
  return options;
}

// Node 0 with group 0, which rests, and the far group 1; node 1 is the test.
struct World {
  World() {
    auto wirings = dist::connect_wirings({1, 1});
    for (auto& wiring : wirings) groups.push_back(dist::make_socket_groups(wiring, std::chrono::seconds(20)));
    others = std::make_shared<OtherNodes>(std::make_unique<dist::ControlHost>(wirings[0], groups[0].world));
    guest = std::make_unique<dist::ControlGuest>(wirings[1], groups[1].world);
    board = std::make_shared<PassBoard>(2);
    board->tell([others = others](const PassBoard::Pass& pass, const std::vector<bool>& idle) {
      others->pass(pass, idle);
    });
    far = std::make_unique<FarGroup>(options_of(), 1, EngineReport(), kLimits, board, others);
    others->listen({nullptr, far.get()}, {0, 1}, kLimits);
  }
  EngineMessage hear() {
    auto bytes = guest->receive();
    EXPECT_TRUE(bytes.ok() && bytes->has_value());
    auto message = parse_engine_message(**bytes, 2, kLimits);
    EXPECT_TRUE(message.ok()) << message.error().message;
    return std::move(*message);
  }
  void say(std::string_view bytes) { EXPECT_TRUE(guest->send(bytes).ok()); }

  std::vector<dist::SocketGroups> groups;
  std::shared_ptr<OtherNodes> others;
  std::unique_ptr<dist::ControlGuest> guest;
  std::shared_ptr<PassBoard> board;
  std::unique_ptr<FarGroup> far;
};

BatchPlan plan_of(uint64_t step) {
  BatchPlan plan;
  plan.step = step;
  if (step == 0) {
    for (int32_t slot = 0; slot < 2; ++slot) {
      BatchPlan::Open& open = plan.open.emplace_back();
      open.slot = slot;
      open.init.prompt = {1, 2, 3};
      if (slot == 1) open.init.mask = std::make_shared<SumMask>(5);
    }
  }
  for (int32_t slot = 0; slot < 2; ++slot) {
    BatchRow& row = plan.rows.emplace_back();
    row.slot = slot;
    row.start = static_cast<int32_t>(step);
    row.sample = true;
    if (step > 0) row.drafts = kWidth - 1;
  }
  return plan;
}

bool allows(const MaskRow& row, int32_t token) {
  return !row.constrains || (row.allowed[static_cast<size_t>(token) / 64] >> (token % 64) & 1) != 0;
}

// Every step guesses for the row with masks, some of them what the masks forbid, and takes what they allow;
// the mask fails when five tokens have come.
TEST(FarGroup, StepsMasksAndAnswers) {
  World world;
  std::vector<int32_t> tokens;  // of the slot with masks
  for (uint64_t step = 0; step < 3; ++step) {
    auto answer = world.far->step(plan_of(step));
    const EngineMessage told = world.hear();
    ASSERT_TRUE(told.step.has_value());
    EXPECT_EQ(told.step->group, 1);
    EXPECT_EQ(told.step->plan.step, step);
    const PassBoard::Want want{.named = 0, .going_on = 2, .sampling = 2, .graph_rows = 2, .width = kWidth};
    world.say(encode_want(1, want));
    const EngineMessage begun = world.hear();
    ASSERT_TRUE(begun.pass.has_value());
    EXPECT_EQ(begun.pass->pass, PassBoard::of({&want, 1}));
    EXPECT_EQ(begun.pass->idle, (std::vector<bool>{true, false}));

    MaskQuestion question;
    question.step = step;
    question.shape = {3, kWidth, false};  // a row of padding
    question.choices = 2;
    question.masked = {{1, 1, static_cast<int32_t>(tokens.size())}};
    int64_t sum = 0;
    for (const int32_t token : tokens) sum += token;
    std::vector<int32_t> guesses;
    for (int32_t i = 0; i + 1 < kWidth; ++i) {
      guesses.push_back(static_cast<int32_t>(sum % 7) + 7 * i + (step == 0 && i == 1 ? 1 : 0));
      sum += guesses.back();
    }
    question.guessed = {{1, sample::GuessTree::chain(guesses)}};
    world.say(encode_question(1, question));
    const EngineMessage masks = world.hear();
    ASSERT_TRUE(masks.masks.has_value());
    EXPECT_EQ(masks.masks->group, 1);
    EXPECT_EQ(masks.masks->step, step);
    ASSERT_EQ(masks.masks->rows.size(), 3U * kWidth);
    StepResult result;
    result.step = step;
    result.rows.resize(2);
    result.rows[0].slot = 0;
    result.rows[0].outputs.push_back({.token = 9, .logprob = -0.5F, .top = {{9, -0.5F}}, .requested = {}});
    result.rows[1].slot = 1;
    result.rows[1].drafted = kWidth - 1;
    for (int32_t i = 0; i + 1 < kWidth; ++i) {
      const auto& rows = masks.masks->rows;
      EXPECT_FALSE(rows[static_cast<size_t>(i) * 3].constrains) << "a row without a mask";
      EXPECT_FALSE(rows[static_cast<size_t>(i) * 3 + 2].constrains) << "padding";
      const int32_t token = guesses[static_cast<size_t>(i)];
      if (!allows(rows[static_cast<size_t>(i) * 3 + 1], token)) break;
      result.rows[1].outputs.push_back({.token = token, .logprob = 0.0F, .top = {}, .requested = {}});
      tokens.push_back(token);
    }
    EXPECT_EQ(result.rows[1].outputs.size(), step == 0 ? 1U : 3U);
    world.say(encode_answer(1, result, {.busy = 2.0, .idle = 1.0}));
    const auto got = answer.get();
    ASSERT_TRUE(got.ok()) << got.error().message;
    ASSERT_EQ(got->rows.size(), 2U);
    EXPECT_EQ(got->rows[0].outputs[0].token, 9);
    EXPECT_EQ(got->rows[0].outputs[0].top[0].logprob, -0.5F);
    EXPECT_EQ(got->rows[1].drafted, kWidth - 1);
    EXPECT_EQ(world.far->device_clock()->busy, 2.0);
    // The fifth token is of the last step: the mask of the sixth cannot be had.
    EXPECT_EQ(got->rows[1].error.value_or(Error()).message, step == 2 ? "too costly" : "") << step;
  }
}

// Steps in flight, a mask that is waited for, and further steps: all have the world's error.
TEST(FarGroup, AFailureReachesWhoeverWaits) {
  World world;
  auto first = world.far->step(plan_of(0));
  auto second = world.far->step(plan_of(1));
  MaskQuestion question;
  question.step = 1;
  question.shape = {2, 1, false};
  question.choices = 2;
  question.masked = {{1, 1, 1}};  // needs the first step's token
  world.say(encode_question(1, question));
  world.groups[1].world->fail(error(ErrorCode::kInternal, "GPU 1 is on fire"));
  EXPECT_EQ(first.get().error().message, "GPU 1 is on fire");
  EXPECT_EQ(second.get().error().message, "GPU 1 is on fire");
  EXPECT_EQ(world.far->step(plan_of(2)).get().error().message, "GPU 1 is on fire");
}

TEST(FarGroup, WhatNoLeaderSaysEndsTheWorld) {
  World world;
  auto answer = world.far->step(plan_of(0));
  world.say("nonsense");
  const auto got = answer.get();
  ASSERT_FALSE(got.ok());
  EXPECT_NE(got.error().message.find("a leader sent 8 bytes that are no message of this model"),
            std::string::npos)
      << got.error().message;
  EXPECT_FALSE(world.groups[1].ranks[0]->barrier().ok());
}

TEST(LeaderWire, AnyBytesAreTakenWithoutHarm) {
  std::mt19937 random(6);
  MaskQuestion question;
  question.shape = {3, 4, true};
  question.choices = 2;
  question.masked = {{1, 2, 3}};
  question.guessed = {{1, sample::GuessTree::chain(std::vector<int32_t>{5, 6})}};
  StepResult result;
  result.rows.resize(1);
  result.rows[0].outputs.push_back(
      {.token = 7, .logprob = 1.0F, .top = {{1, 2.0F}}, .requested = {{3, 4.0F}}});
  const std::vector<std::string> messages{encode_want(1, {.named = 3, .width = 2}),
                                          encode_question(0, question), encode_answer(1, result, {})};
  for (const auto& message : messages) EXPECT_TRUE(parse_leader_message(message, 2, kLimits).ok());
  for (const auto& message : messages) EXPECT_FALSE(parse_leader_message(message + "x", 2, kLimits).ok());
  EXPECT_FALSE(parse_leader_message(messages[0], 1, kLimits).ok()) << "group 1 of 1";
  question.masked[0].row = 2;
  EXPECT_FALSE(parse_leader_message(encode_question(0, question), 2, kLimits).ok()) << "row 2 of 2";
  question.masked[0].row = 1;
  question.guessed[0].guesses.parents[0] = 0;
  EXPECT_FALSE(parse_leader_message(encode_question(0, question), 2, kLimits).ok()) << "its own parent";
  result.rows[0].slot = 4;
  EXPECT_FALSE(parse_leader_message(encode_answer(1, result, {}), 2, kLimits).ok()) << "slot 4 of 4";
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = messages[random() % messages.size()];
    if (round % 2 == 0) bytes.resize(random() % bytes.size());
    for (unsigned i = random() % 6; i > 0 && !bytes.empty(); --i)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    (void)parse_leader_message(bytes, 2, kLimits);
  }
}

}  // namespace
}  // namespace fathom::engine

// What goes into a step: prefixes, chunks, turns, and no row too many.
#include "sched/scheduler_core_fixture.h"

namespace fathom::sched {
namespace {

class StepPlanningTest : public SchedulerCoreTest {};

TEST_F(StepPlanningTest, SamplesOfOnePromptShareIt) {
  start();
  for (int i = 0; i < 5; ++i) add(request(std::to_string(i), 0, 101, 4));
  run_all();
  EXPECT_EQ(executor_->prompt_tokens_computed(), 101 + 4 * 1);
  for (int i = 0; i < 5; ++i) {
    expect_as_alone(std::to_string(i));
    EXPECT_EQ(see(std::to_string(i)).cached_tokens, i == 0 ? 0 : 100);
  }
}

TEST_F(StepPlanningTest, APrefixBeingComputedIsSharedChunkByChunk) {
  options_.chunked_prefill_size = 40;
  options_.in_batch_prefix_tokens = 4;
  start();
  add(request("long", 0, 400, 1));
  add(request("short", 0, 60, 1));  // shares 60 tokens: ready after two chunks, not after ten
  int steps = 0;
  while (!see("short").finish && step()) ++steps;
  EXPECT_LE(steps, 6);
  run_all();
  expect_as_alone("short");
  expect_as_alone("long");
  EXPECT_EQ(executor_->prompt_tokens_computed(), 400 + 4);
}

TEST_F(StepPlanningTest, TheLastPromptTokenIsRecomputed) {
  start();
  add(request("a", 0, 40, 1));
  run_all();
  add(request("b", 0, 40, 3));
  run_all();
  EXPECT_EQ(see("b").cached_tokens, 36);  // 39 rounded down to pages
  expect_as_alone("b");
}

// The tokens after a long prompt's last whole page are of mode kDecode, however little of it is cached.
TEST_F(StepPlanningTest, ALongPromptsLastTokensHaveTheModeOfOutputs) {
  limits_.absorbed_tail = 40;
  options_.chunked_prefill_size = 16;
  start();
  for (const int32_t length : {39, 40, 42, 43}) {
    for (const bool cached : {false, true}) {
      const auto id = std::to_string(length) + (cached ? " cached" : "");
      add(request(id, 200 * (length % 7), length, 3));
      std::vector<int32_t> absorbed;
      while (!see(id).finish && step()) {
        for (const BatchRow& row : all_rows_) {
          if (row.mode == RowMode::kExtend || row.tokens.empty()) continue;
          for (int32_t i = 0; i < row.num_tokens(); ++i) absorbed.push_back(row.start + i);
        }
      }
      const int32_t tail = length < 40 ? length : length / 4 * 4;
      std::vector<int32_t> expected;
      for (int32_t position = tail; position < length; ++position) expected.push_back(position);
      EXPECT_EQ(absorbed, expected) << id;
      expect_as_alone(id);
    }
  }
}

// With stages that work at the same time, sequences take turns: those of a step do not wait for the step
// before.
TEST_F(StepPlanningTest, SequencesTakeTurnsWhereStepsRunAtTheSameTime) {
  options_.stages = 2;
  start();
  for (int i = 0; i < 5; ++i) add(request(std::to_string(i), 40 * i, 8, 30));
  while (see("4").tokens.empty()) step();
  std::vector<int32_t> before;
  int64_t seen = 0;
  for (int i = 0; i < 12; ++i) {
    ASSERT_TRUE(step());
    ASSERT_FALSE(rows_.empty());
    std::vector<int32_t> slots;
    for (const BatchRow& row : rows_) slots.push_back(row.slot);
    EXPECT_LE(slots.size(), 3U);
    EXPECT_GE(slots.size(), 2U);
    for (const int32_t slot : slots) EXPECT_EQ(std::ranges::count(before, slot), 0) << "in two steps running";
    before = slots;
    seen += static_cast<int64_t>(slots.size());
    EXPECT_EQ(core_->steps_in_flight(), 2U);  // one of three has just ended
  }
  EXPECT_EQ(seen, 30);
  run_all();
  for (int i = 0; i < 5; ++i) expect_as_alone(std::to_string(i));
}

TEST_F(StepPlanningTest, ALongPromptDoesNotStopDecoding) {
  options_.chunked_prefill_size = 16;
  start();
  add(request("decoding", 0, 8, 100));
  while (see("decoding").tokens.empty()) step();
  add(request("long", 500, 400, 1));
  size_t before = see("decoding").tokens.size();
  for (int i = 0; i < 20; ++i) step();
  EXPECT_GE(see("decoding").tokens.size(), before + 19);
  EXPECT_TRUE(executor_->saw_mixed_step());
  EXPECT_LE(executor_->max_step_tokens_seen(), 17);
  run_all();
  expect_as_alone("decoding");
  expect_as_alone("long");
}

TEST_F(StepPlanningTest, AShortPromptOvertakesALongOne) {
  options_.chunked_prefill_size = 32;
  start();
  add(request("long", 0, 900, 1));
  step();
  add(request("short", 950, 10, 1));
  for (int i = 0; i < 4; ++i) step();
  EXPECT_TRUE(see("short").finish);
  EXPECT_FALSE(see("long").finish);
}

TEST_F(StepPlanningTest, ShortPromptsDoNotStarveALongOne) {
  options_.chunked_prefill_size = 32;
  start();
  add(request("long", 0, 320, 1));
  int next = 0;
  for (int i = 0; i < 30 && !see("long").finish; ++i) {
    for (int j = 0; j < 2; ++j) {
      ++next;
      add(request("s" + std::to_string(next), 350 + 20 * (next % 30), 16, 1));
    }
    step();
  }
  EXPECT_TRUE(see("long").finish);  // half of the budget, 16 tokens a step, was always its own
  run_all();
  expect_as_alone("long");
}

TEST_F(StepPlanningTest, WithMixingOffKindsTakeTurns) {
  options_.enable_mixed_chunk = false;
  options_.chunked_prefill_size = 16;
  start();
  add(request("decoding", 0, 8, 60));
  while (see("decoding").tokens.empty()) step();
  add(request("long", 500, 300, 5));
  size_t before = see("decoding").tokens.size();
  for (int i = 0; i < 20; ++i) step();
  EXPECT_GE(see("decoding").tokens.size(), before + 9);
  run_all();
  EXPECT_FALSE(executor_->saw_mixed_step());
  expect_as_alone("decoding");
  expect_as_alone("long");
}

TEST_F(StepPlanningTest, WithChunkingOffPromptsAreWhole) {
  options_.chunked_prefill_size = -1;
  options_.max_prefill_tokens = 100;
  start();
  add(request("a", 0, 60, 1));
  add(request("b", 200, 60, 1));
  add(request("c", 400, 300, 1));
  std::vector<size_t> lengths;
  while (step()) {
  }
  EXPECT_EQ(rows_planned_, 3);
  EXPECT_EQ(executor_->max_step_tokens_seen(), 300);
}

TEST_F(StepPlanningTest, ALengthEndWastesNoRow) {
  start();
  add(request("a", 0, 10, 7));
  run_all();
  EXPECT_EQ(rows_planned_, 7);  // the prompt's row chooses the first token
  expect_as_alone("a");
}

TEST_F(StepPlanningTest, AStopDiscardsTheRowInFlight) {
  start();
  auto a = request("a", 0, 10, 50);
  auto alone = answer_alone(a, limits_, 2000);
  a.sampling.stop_token_ids = {alone.tokens[5]};
  add(a);
  run_all();
  expect_as_alone("a");
  EXPECT_EQ(see("a").tokens.size(), 6U);
  EXPECT_EQ(see("a").finish->matched_token, alone.tokens[5]);
  EXPECT_EQ(rows_planned_, 7);  // one row more than tokens
  EXPECT_EQ(core_->stats().used_tokens, 0);
}

// A client that goes on at once finds its answer in the cache, though a step still touches the answer's
// pages.
TEST_F(StepPlanningTest, TheNextTurnFindsTheAnswer) {
  start();
  auto a = request("a", 0, 10, 50);
  a.sampling.stop_token_ids = {answer_alone(a, limits_, 2000).tokens[5]};
  add(a);
  while (!see("a").finish) ASSERT_TRUE(step());
  EXPECT_EQ(executor_->pending(), 1U);
  auto b = request("b", 500, 3, 5);
  b.prompt.insert(b.prompt.begin(), see("a").tokens.begin(), see("a").tokens.end());
  b.prompt.insert(b.prompt.begin(), a.prompt.begin(), a.prompt.end());
  add(b);
  run_all();
  EXPECT_EQ(see("b").cached_tokens, 12);  // of 16: the last one is computed by the step that is out
  expect_as_alone("b");
  EXPECT_EQ(core_->stats().used_tokens, 0);
}

TEST_F(StepPlanningTest, NoNewTokensComputesThePromptOnly) {
  options_.chunked_prefill_size = 16;
  start();
  add(request("warm", 0, 50, 0));
  run_all();
  auto a = request("a", 0, 50, 0);
  a.logprobs.prompt_start = 10;
  add(a);
  run_all();
  EXPECT_EQ(see("a").tokens.size(), 0U);
  EXPECT_EQ(see("a").finish->kind, FinishReason::Kind::kLength);
  EXPECT_EQ(see("a").cached_tokens, 8);  // position 9 gives the first logprob
  auto alone = answer_alone(a, limits_, 2000);
  ASSERT_EQ(see("a").prompt_logprobs.size(), 40U);
  for (size_t i = 0; i < 40; ++i) {
    EXPECT_EQ(see("a").prompt_logprobs[i].logprob, alone.prompt_logprobs[i].logprob);
  }
}

}  // namespace
}  // namespace fathom::sched

// The scheduler's rules one by one, driven step by step.
#include "sched/scheduler_core.h"

#include <gtest/gtest.h>

#include <map>

#include "sched/fake_executor.h"
#include "sched/schedule_judge.h"

namespace fathom::sched {
namespace {

struct Seen {
  std::vector<int32_t> tokens;
  std::vector<TokenOutput> prompt_logprobs;
  std::optional<FinishReason> finish;
  int32_t cached_tokens = 0;
  int32_t retractions = 0;
};

class SchedulerCoreTest : public testing::Test {
 protected:
  void start() {
    executor_ = std::make_unique<FakeExecutor>(limits_);
    core_ = std::make_unique<SchedulerCore>(options_, limits_, steady_clock());
  }

  static GenerateRequest request(const std::string& id, int32_t first, int32_t length, int32_t outputs) {
    GenerateRequest request;
    request.id = id;
    for (int32_t i = 0; i < length; ++i) request.prompt.push_back((first + i) % 1000);
    request.sampling.max_new_tokens = outputs;
    return request;
  }

  void add(GenerateRequest request) {
    requests_[request.id] = request;
    streams_[request.id] = std::make_shared<TokenStream>();
    core_->add(request, streams_[request.id]);
  }

  // Plans as far ahead as allowed, then completes the oldest step. The rows of the last plan made are in
  // `rows_`. False when there is nothing to do.
  bool step() {
    rows_.clear();
    while (core_->can_plan_ahead()) {
      auto plan = core_->plan();
      if (!plan) break;
      rows_ = plan->rows;
      rows_planned_ += static_cast<int64_t>(plan->rows.size());
      executor_->submit(std::move(*plan));
    }
    if (executor_->pending() == 0) return false;
    core_->account(executor_->complete());
    auto integrity = core_->check_integrity();
    EXPECT_TRUE(integrity.ok()) << integrity.error().message;
    return true;
  }
  int run_all() {
    int steps = 0;
    while (step()) {
      if (++steps > 10000) {
        ADD_FAILURE() << "it does not end";
        break;
      }
    }
    return steps;
  }

  Seen& see(const std::string& id) {
    Seen& seen = seen_[id];
    while (auto event = streams_.at(id)->next(std::chrono::milliseconds(0))) {
      for (const auto& output : event->outputs) seen.tokens.push_back(output.token);
      for (const auto& output : event->prompt_logprobs) seen.prompt_logprobs.push_back(output);
      if (event->finish) seen.finish = event->finish;
      seen.cached_tokens = event->cached_tokens;
      seen.retractions = event->retractions;
    }
    return seen;
  }
  void expect_as_alone(const std::string& id) {
    auto alone = answer_alone(requests_.at(id), limits_, limits_.num_pages * limits_.page_size);
    EXPECT_EQ(see(id).tokens, alone.tokens) << id;
    ASSERT_TRUE(see(id).finish) << id;
    EXPECT_EQ(see(id).finish->kind, alone.finish) << id;
  }

  ExecutorLimits limits_{.max_slots = 8,
                         .num_pages = 500,
                         .page_size = 4,
                         .max_context = 1000,
                         .vocab_size = 1000,
                         .max_step_tokens = 512};
  SchedulerOptions options_;
  std::unique_ptr<FakeExecutor> executor_;
  std::unique_ptr<SchedulerCore> core_;
  std::map<std::string, GenerateRequest> requests_;
  std::map<std::string, std::shared_ptr<TokenStream>> streams_;
  std::map<std::string, Seen> seen_;
  std::vector<BatchRow> rows_;
  int64_t rows_planned_ = 0;
};

TEST_F(SchedulerCoreTest, SamplesOfOnePromptShareIt) {
  start();
  for (int i = 0; i < 5; ++i) add(request(std::to_string(i), 0, 101, 4));
  run_all();
  EXPECT_EQ(executor_->prompt_tokens_computed(), 101 + 4 * 1);
  for (int i = 0; i < 5; ++i) {
    expect_as_alone(std::to_string(i));
    EXPECT_EQ(see(std::to_string(i)).cached_tokens, i == 0 ? 0 : 100);
  }
}

TEST_F(SchedulerCoreTest, APrefixBeingComputedIsSharedChunkByChunk) {
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

TEST_F(SchedulerCoreTest, TheLastPromptTokenIsRecomputed) {
  start();
  add(request("a", 0, 40, 1));
  run_all();
  add(request("b", 0, 40, 3));
  run_all();
  EXPECT_EQ(see("b").cached_tokens, 36);  // 39 rounded down to pages
  expect_as_alone("b");
}

TEST_F(SchedulerCoreTest, NamespacesDoNotShare) {
  start();
  add(request("a", 0, 40, 1));
  run_all();
  auto other = request("b", 0, 40, 1);
  other.cache_namespace = "tenant";
  add(other);
  run_all();
  EXPECT_EQ(see("b").cached_tokens, 0);
}

TEST_F(SchedulerCoreTest, ALongPromptDoesNotStopDecoding) {
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

TEST_F(SchedulerCoreTest, AShortPromptOvertakesALongOne) {
  options_.chunked_prefill_size = 32;
  start();
  add(request("long", 0, 900, 1));
  step();
  add(request("short", 950, 10, 1));
  for (int i = 0; i < 4; ++i) step();
  EXPECT_TRUE(see("short").finish);
  EXPECT_FALSE(see("long").finish);
}

TEST_F(SchedulerCoreTest, ShortPromptsDoNotStarveALongOne) {
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

TEST_F(SchedulerCoreTest, WithMixingOffKindsTakeTurns) {
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

TEST_F(SchedulerCoreTest, WithChunkingOffPromptsAreWhole) {
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

TEST_F(SchedulerCoreTest, ALengthEndWastesNoRow) {
  start();
  add(request("a", 0, 10, 7));
  run_all();
  EXPECT_EQ(rows_planned_, 7);  // the prompt's row chooses the first token
  expect_as_alone("a");
}

TEST_F(SchedulerCoreTest, AStopDiscardsTheRowInFlight) {
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

TEST_F(SchedulerCoreTest, NoNewTokensComputesThePromptOnly) {
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

TEST_F(SchedulerCoreTest, CancelFreesThePagesWithinAStep) {
  start();
  add(request("running", 0, 100, 100));
  add(request("other", 500, 20, 100));
  for (int i = 0; i < 5; ++i) step();
  auto waiting = request("waiting", 900, 50, 10);
  add(waiting);
  core_->cancel("waiting");
  core_->cancel("unknown");
  EXPECT_EQ(see("waiting").finish->kind, FinishReason::Kind::kAbort);
  int64_t used = core_->stats().used_tokens;
  core_->cancel("running");
  EXPECT_EQ(see("running").finish->kind, FinishReason::Kind::kAbort);
  step();
  EXPECT_LE(core_->stats().used_tokens, used - 100);
  run_all();
  expect_as_alone("other");
}

TEST_F(SchedulerCoreTest, RequestsThatNeverFitAreRefused) {
  limits_.num_pages = 10;
  start();
  auto message = [&](const GenerateRequest& request) {
    auto result = core_->admissible(request);
    return result.ok() ? std::string() : result.error().message;
  };
  EXPECT_EQ(message(request("a", 0, 40, 1)), "");
  EXPECT_NE(message(request("a", 0, 41, 1)).find("--max-total-tokens"), std::string::npos);
  EXPECT_NE(message(request("a", 0, 1000, 1)).find("longer than the model's context"), std::string::npos);
  EXPECT_NE(message(request("a", 0, 0, 1)).find("empty"), std::string::npos);
  EXPECT_NE(message(request("a", 0, 5, -1)).find("max_new_tokens"), std::string::npos);
  auto bad = request("a", 0, 3, 1);
  bad.prompt[1] = 1000;
  EXPECT_NE(message(bad).find("vocabulary"), std::string::npos);
  bad.prompt[1] = -1;
  EXPECT_NE(message(bad).find("vocabulary"), std::string::npos);
}

TEST_F(SchedulerCoreTest, OutputEndsWhereThePoolEnds) {
  limits_.num_pages = 10;
  start();
  EXPECT_EQ(core_->max_request_tokens(), 40);
  add(request("a", 0, 40, 5));
  add(request("b", 100, 30, 100));
  run_all();
  EXPECT_EQ(see("a").tokens.size(), 1U);
  EXPECT_EQ(see("b").tokens.size(), 11U);
  expect_as_alone("a");
  expect_as_alone("b");
}

TEST_F(SchedulerCoreTest, PreemptedRequestsGoOnWithTheSameTokens) {
  limits_.num_pages = 30;
  options_.init_new_token_ratio = 0.0;
  options_.clip_max_new_tokens_estimation = 1;
  start();
  for (int i = 0; i < 4; ++i) add(request(std::to_string(i), 100 * i, 20, 60));
  run_all();
  for (int i = 0; i < 4; ++i) expect_as_alone(std::to_string(i));
  EXPECT_EQ(see("0").retractions, 0);  // the first is spared
  EXPECT_GT(core_->stats().retractions, 0);
  EXPECT_EQ(core_->stats().prompt_tokens, 80);  // counted once
  EXPECT_EQ(core_->stats().generated_tokens, 240);
}

TEST_F(SchedulerCoreTest, AdmissionLeavesRoomForExpectedOutput) {
  limits_.num_pages = 50;  // 200 tokens
  start();
  for (int i = 0; i < 3; ++i) add(request(std::to_string(i), 100 * i, 20, 80));
  step();
  EXPECT_EQ(core_->stats().running_requests, 2);  // 2 * (20 + 0.7 * 80) leave no room for 100 more
  run_all();
  EXPECT_EQ(core_->stats().retractions, 0);
}

TEST_F(SchedulerCoreTest, LpmRunsTheBestCachedFirst) {
  options_.schedule_policy = SchedulePolicy::kLpm;
  options_.max_running_requests = 1;
  start();
  add(request("warm", 0, 100, 1));
  run_all();
  add(request("cold1", 300, 50, 1));
  add(request("cold2", 500, 50, 1));
  add(request("cold3", 300, 51, 1));  // once cold1 is done, 48 of its tokens are cached
  add(request("warm2", 0, 100, 1));
  std::vector<std::string> order;
  while (step()) {
    for (const char* id : {"cold1", "cold2", "cold3", "warm2"}) {
      if (see(id).finish && std::find(order.begin(), order.end(), id) == order.end()) order.push_back(id);
    }
  }
  EXPECT_EQ(order, (std::vector<std::string>{"warm2", "cold1", "cold3", "cold2"}));
}

TEST(WaitingQueueTest, LpmDefersSharersAndPutsPreemptedAndPatientOnesFirst) {
  SchedulerOptions options;
  options.schedule_policy = SchedulePolicy::kLpm;
  kv::KvCache cache({.num_pages = 100, .page_size = 4});
  WaitingQueue queue(options, cache);
  auto wait = [&](const std::string& id, int32_t first, uint64_t since, int32_t retractions) {
    auto sequence = std::make_unique<Sequence>();
    sequence->request.id = id;
    for (int32_t i = 0; i < 40; ++i) sequence->tokens.push_back(first + i);
    sequence->prompt_len = 40;
    sequence->waiting_since = since;
    sequence->retractions = retractions;
    queue.push_back(std::move(sequence));
  };
  wait("a", 0, 2000, 0);
  wait("sharer", 0, 2000, 0);
  wait("b", 100, 2000, 0);
  wait("patient", 200, 0, 0);
  wait("preempted", 300, 2000, 1);
  std::string order;
  for (const Sequence* sequence : queue.candidates(2000)) order += sequence->request.id + " ";
  EXPECT_EQ(order, "preempted patient a b sharer ");
}

TEST_F(SchedulerCoreTest, PriorityGoesFirstWhereAskedFor) {
  options_.enable_priority_scheduling = true;
  options_.max_running_requests = 1;
  start();
  add(request("first", 0, 10, 5));
  step();
  auto low = request("low", 300, 10, 1);
  auto high = request("high", 500, 10, 1);
  high.priority = 1;
  add(low);
  add(high);
  while (!see("high").finish) ASSERT_TRUE(step());
  EXPECT_FALSE(see("low").finish);
  run_all();
  EXPECT_TRUE(see("low").finish);
}

TEST_F(SchedulerCoreTest, AFaultEndsEveryRequestWithTheError) {
  options_.max_running_requests = 2;
  start();
  executor_->fail_at_step(4);
  for (int i = 0; i < 4; ++i) add(request(std::to_string(i), 100 * i, 20, 20));
  run_all();
  ASSERT_TRUE(core_->fault());
  add(request("late", 0, 5, 1));
  for (const char* id : {"0", "1", "2", "3", "late"}) {
    ASSERT_TRUE(see(id).finish) << id;
    EXPECT_EQ(see(id).finish->kind, FinishReason::Kind::kAbort);
    ASSERT_TRUE(see(id).finish->error);
    EXPECT_NE(see(id).finish->error->message.find("the device is lost"), std::string::npos);
  }
  EXPECT_TRUE(core_->idle());
  EXPECT_EQ(core_->stats().used_tokens, 0);
  EXPECT_FALSE(core_->plan());
}

TEST_F(SchedulerCoreTest, AnIdIsUniqueAmongTheLive) {
  start();
  add(request("a", 0, 10, 5));
  auto second = std::make_shared<TokenStream>();
  core_->add(request("a", 100, 10, 5), second);
  auto event = second->next(std::chrono::milliseconds(0));
  ASSERT_TRUE(event && event->finish && event->finish->error);
  EXPECT_EQ(event->finish->error->code, ErrorCode::kInvalidArgument);
  run_all();
  expect_as_alone("a");
  add(request("a", 200, 10, 5));
  run_all();
  EXPECT_TRUE(see("a").finish);
}

TEST_F(SchedulerCoreTest, TheCacheIsFlushedOnlyWhenIdle) {
  start();
  add(request("a", 0, 40, 5));
  EXPECT_EQ(core_->flush_cache().error().code, ErrorCode::kUnavailable);
  run_all();
  EXPECT_GT(core_->stats().cached_tokens, 0);
  EXPECT_TRUE(core_->flush_cache().ok());
  EXPECT_EQ(core_->stats().cached_tokens, 0);
}

TEST_F(SchedulerCoreTest, WithoutRadixCacheNothingIsShared) {
  options_.disable_radix_cache = true;
  start();
  for (int i = 0; i < 3; ++i) add(request(std::to_string(i), 0, 100, 2));
  run_all();
  EXPECT_EQ(executor_->prompt_tokens_computed(), 300);
  EXPECT_EQ(core_->stats().cached_tokens, 0);
}

TEST(NewTokenRatioTest, DecaysToItsFloorAndRisesAfterAPreemption) {
  SchedulerOptions options;
  NewTokenRatio ratio(options);
  EXPECT_DOUBLE_EQ(ratio.value(), 0.7);
  for (int i = 0; i < 300; ++i) ratio.decode_step();
  EXPECT_NEAR(ratio.value(), 0.7 - (0.7 - 0.098) / 2, 1e-9);
  for (int i = 0; i < 1000; ++i) ratio.decode_step();
  EXPECT_NEAR(ratio.value(), 0.098, 1e-9);
  ratio.preempted(60, 99, 1, 20);
  EXPECT_NEAR(ratio.value(), 0.8, 1e-9);
  ratio.preempted(600, 99, 1, 20);
  EXPECT_DOUBLE_EQ(ratio.value(), 1.0);
  ratio.idle();
  EXPECT_DOUBLE_EQ(ratio.value(), 0.7);
}

TEST(RateMeterTest, CountsTheLastSeconds) {
  RateMeter meter;
  EXPECT_EQ(meter.per_second(0), 0.0);
  int64_t now = 0;
  for (int i = 0; i < 100; ++i, now += 100'000'000) meter.add(now, 5);
  EXPECT_NEAR(meter.per_second(now), 50.0, 1.0);
  EXPECT_NEAR(meter.per_second(now + 60'000'000'000), 0.0, 1e-9);
}

TEST(SchedulePolicyTest, Names) {
  EXPECT_EQ(*parse_schedule_policy("lpm"), SchedulePolicy::kLpm);
  EXPECT_EQ(*parse_schedule_policy("fcfs"), SchedulePolicy::kFcfs);
  EXPECT_FALSE(parse_schedule_policy("LPM ").ok());
  EXPECT_STREQ(to_string(SchedulePolicy::kLpm), "lpm");
}

}  // namespace
}  // namespace fathom::sched

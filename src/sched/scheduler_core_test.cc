// The life of a request: admission, preemption, cancel, refusal, faults.
#include "sched/scheduler_core.h"

#include <deque>

#include "sched/manual_clock.h"
#include "sched/scheduler_core_fixture.h"

namespace fathom::sched {
namespace {

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

TEST_F(SchedulerCoreTest, ExplainsMissesWhereAskedAndCountsThemAll) {
  start();
  add(request("first", 0, 40, 3));
  run_all();
  EXPECT_TRUE(see("first").cache_misses.empty());
  auto again = request("again", 0, 40, 1);
  again.explain_miss = ExplainMiss::kOwnNamespace;
  add(again);
  auto differs = request("differs", 0, 40, 0);
  differs.prompt[21] = 7;
  differs.explain_miss = ExplainMiss::kOwnNamespace;
  add(differs);
  auto logprobs = request("logprobs", 0, 40, 1);
  logprobs.logprobs.prompt_start = 10;
  logprobs.explain_miss = ExplainMiss::kOwnNamespace;
  add(logprobs);
  auto elsewhere = request("elsewhere", 0, 40, 1);
  elsewhere.cache_namespace = "tenant";
  elsewhere.explain_miss = ExplainMiss::kAllNamespaces;
  add(elsewhere);
  run_all();
  ASSERT_EQ(see("again").cache_misses.size(), 1u);
  EXPECT_EQ(see("again").cache_misses[0].reason, MissReason::kPageTail);
  ASSERT_EQ(see("differs").cache_misses.size(), 1u) << "a request without outputs is told too";
  EXPECT_EQ(see("differs").cache_misses[0].reason, MissReason::kFirstDifference);
  EXPECT_EQ(see("differs").cache_misses[0].at_token, 21);
  EXPECT_EQ(see("differs").cache_misses[0].expected.at(0), 21);
  EXPECT_EQ(see("logprobs").cache_misses.at(0).reason, MissReason::kLogprobs);
  EXPECT_EQ(see("elsewhere").cache_misses.at(0).reason, MissReason::kOtherSalt);
  const MissCounters counts = core_->stats().cache_misses;
  EXPECT_EQ(counts.requests[static_cast<size_t>(MissReason::kNeverSeen)], 1);
  EXPECT_EQ(counts.tokens[static_cast<size_t>(MissReason::kNeverSeen)], 40);
  EXPECT_EQ(counts.requests[static_cast<size_t>(MissReason::kFirstDifference)], 1);
  EXPECT_EQ(counts.tokens[static_cast<size_t>(MissReason::kFirstDifference)], 20);
  EXPECT_EQ(counts.requests[static_cast<size_t>(MissReason::kPageTail)], 1);
  EXPECT_EQ(counts.requests[static_cast<size_t>(MissReason::kLogprobs)], 1);
  EXPECT_EQ(counts.requests[static_cast<size_t>(MissReason::kOtherSalt)], 1);
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

// A stop string is found by who reads the text; the answer is complete.
TEST_F(SchedulerCoreTest, WhatItsReaderEndsIsFinishedAndNotAborted) {
  start();
  add(request("a", 0, 20, 100));
  for (int i = 0; i < 5; ++i) step();
  core_->finish("a");
  core_->finish("a");
  EXPECT_EQ(see("a").finish->kind, FinishReason::Kind::kStop);
  run_all();
  EXPECT_EQ(core_->stats().finished_requests, 1);
  EXPECT_EQ(core_->stats().aborted_requests, 0);
  EXPECT_EQ(core_->stats().used_tokens, 0);
}

TEST_F(SchedulerCoreTest, HeldEventsComeWhenToldAndInTheirOrder) {
  start();
  add(request("a", 0, 5, 9));
  while (see("a").tokens.empty()) ASSERT_TRUE(step());
  const size_t before = see("a").tokens.size();
  core_->hold_events();
  ASSERT_TRUE(step());
  core_->cancel("a");
  EXPECT_EQ(see("a").tokens.size(), before);
  EXPECT_FALSE(see("a").finish);
  EXPECT_TRUE(core_->has_held_events());
  core_->tell();
  EXPECT_FALSE(core_->has_held_events());
  const auto token = streams_.at("a")->next(std::chrono::milliseconds(0));
  ASSERT_TRUE(token && token->outputs.size() == 1 && !token->finish);
  const auto end = streams_.at("a")->next(std::chrono::milliseconds(0));
  ASSERT_TRUE(end && end->finish);
  EXPECT_EQ(end->finish->kind, FinishReason::Kind::kAbort);
  add(request("b", 0, 5, 1));  // nothing is held any more
  run_all();
  EXPECT_TRUE(see("b").finish);
}

TEST_F(SchedulerCoreTest, TellsWhenItLastAdvanced) {
  start();
  add(request("a", 0, 10, 100));
  const int64_t came = core_->stats().progress_ns;
  EXPECT_GT(came, 0);
  add(request("b", 0, 10, 100));
  EXPECT_EQ(core_->stats().progress_ns, came);  // more work is no progress
  step();
  EXPECT_GT(core_->stats().progress_ns, came);
  run_all();
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
  EXPECT_EQ(core_->stats().preempted_requests, 0);
  EXPECT_EQ(core_->stats().leaked_pages, 0);
}

TEST_F(SchedulerCoreTest, StatsCountThePreemptedAndTheEvicted) {
  limits_.num_pages = 30;
  options_.init_new_token_ratio = 0.0;
  options_.clip_max_new_tokens_estimation = 1;
  start();
  for (int i = 0; i < 4; ++i) add(request(std::to_string(i), 100 * i, 20, 60));
  int64_t most_preempted = 0;
  while (step()) most_preempted = std::max(most_preempted, core_->stats().preempted_requests);
  EXPECT_GT(most_preempted, 0);
  EXPECT_LE(most_preempted, 3);  // the first is spared
  // Four times 20 tokens were asked for and 60 given: more than the pool's 120 places.
  EXPECT_GT(core_->stats().evicted_tokens, 0);
}

TEST_F(SchedulerCoreTest, StreamsTellWhenARequestWasAdmittedAndWhenATokenCame) {
  limits_.max_slots = 1;
  start();
  add(request("a", 0, 10, 3));
  add(request("b", 100, 10, 3));
  EXPECT_EQ(streams_["a"]->admitted_ns(), 0);
  step();
  EXPECT_GT(streams_["a"]->admitted_ns(), 0);
  EXPECT_EQ(streams_["b"]->admitted_ns(), 0);
  const auto event = streams_["a"]->next(std::chrono::milliseconds(0));
  ASSERT_TRUE(event);
  EXPECT_GE(event->time_ns, streams_["a"]->admitted_ns());
  run_all();
  EXPECT_GT(streams_["b"]->admitted_ns(), streams_["a"]->admitted_ns());
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

TEST_F(SchedulerCoreTest, AnErrorOfARowEndsItsRequestAlone) {
  start();
  add(request("a", 0, 9, 20));
  add(request("b", 100, 9, 20));
  for (int steps = 0;; ++steps) {
    while (core_->can_plan_ahead()) {
      auto plan = core_->plan();
      if (!plan) break;
      executor_->submit(std::move(*plan));
    }
    if (executor_->pending() == 0) break;
    auto result = executor_->complete();
    for (RowResult& row : result->rows) {
      if (steps == 4 && row.slot == 0)
        row.error = error(ErrorCode::kInvalidArgument, "its grammar is too costly");
    }
    core_->account(std::move(result));
  }
  ASSERT_TRUE(see("a").finish);
  EXPECT_EQ(see("a").finish->kind, FinishReason::Kind::kAbort);
  EXPECT_EQ(see("a").finish->error->message, "its grammar is too costly");
  EXPECT_LT(see("a").tokens.size(), 20U);
  expect_as_alone("b");
  EXPECT_TRUE(core_->check_integrity().ok());
}

// Guessing costs ten times as much here and is given up; then two steps are out at a time again.
TEST_F(SchedulerCoreTest, OnlyStepsWithoutGuessesOverlap) {
  limits_.max_drafts = 3;
  ManualClock clock;
  executor_ = std::make_unique<FakeExecutor>(limits_);
  core_ = std::make_unique<SchedulerCore>(options_, limits_, clock);
  add(request("a", 0, 9, 400));
  add(request("b", 100, 9, 400));
  std::deque<bool> out;  // whether they guess
  int guessing = 0, overlapping = 0;
  for (;;) {
    while (core_->can_plan_ahead()) {
      auto plan = core_->plan();
      if (!plan) break;
      out.push_back(std::ranges::any_of(plan->rows, [](const BatchRow& row) { return row.drafts > 0; }));
      EXPECT_TRUE(out.size() == 1 || !(out[0] || out[1]));
      guessing += out.back() ? 1 : 0;
      executor_->submit(std::move(*plan));
    }
    if (executor_->pending() == 0) break;
    overlapping += out.size() == 2 ? 1 : 0;
    clock.ns += out.front() ? 10'000'000 : 1'000'000;
    out.pop_front();
    core_->account(executor_->complete());
  }
  EXPECT_GT(guessing, 1);
  EXPECT_LT(guessing, 40);
  EXPECT_GT(overlapping, 200);
  expect_as_alone("a");
  expect_as_alone("b");
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

}  // namespace
}  // namespace fathom::sched

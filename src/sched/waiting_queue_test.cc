// The policies' order, and the small parts.
#include "sched/waiting_queue.h"

#include <gtest/gtest.h>

#include "sched/new_token_ratio.h"
#include "sched/rate_meter.h"

namespace fathom::sched {
namespace {

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

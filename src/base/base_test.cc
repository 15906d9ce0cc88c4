#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <numeric>
#include <set>
#include <thread>

#include "base/alert.h"
#include "base/math.h"
#include "base/queue.h"
#include "base/random.h"
#include "base/result.h"
#include "base/thread_pool.h"

namespace fathom {
namespace {

Result<int> half(int value) {
  if (value % 2 != 0) return error(ErrorCode::kInvalidArgument, "got {}, expected an even number", value);
  return value / 2;
}

Result<int> quarter(int value) {
  FATHOM_ASSIGN(const int once, half(value));
  FATHOM_ASSIGN(const int twice, half(once));
  return twice;
}

TEST(Result, CarriesTheFirstErrorUp) {
  EXPECT_EQ(*quarter(12), 3);
  const auto failed = quarter(6);
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(failed.error().with_context("quarter").message, "quarter: got 3, expected an even number");
}

TEST(ResultDeathTest, ValueOfAnErrorIsABug) {
  EXPECT_DEATH((void)half(3).value(), "got 3, expected an even number");
}

TEST(Math, RoundsUp) {
  EXPECT_EQ(ceil_div(7, 3), 3);
  EXPECT_EQ(ceil_div(6, 3), 2);
  EXPECT_EQ(round_up(7, 4), 8);
  EXPECT_EQ(round_up(8, 4), 8);
}

TEST(Queue, DeliversInOrderAndDrainsAfterClose) {
  Queue<int> queue;
  EXPECT_TRUE(queue.push(1));
  EXPECT_TRUE(queue.push(2));
  queue.close();
  EXPECT_FALSE(queue.push(3));
  EXPECT_EQ(queue.pop(), 1);
  EXPECT_EQ(queue.pop(), 2);
  EXPECT_EQ(queue.pop(), std::nullopt);
}

TEST(Queue, EveryItemReachesExactlyOneConsumer) {
  constexpr int kItems = 2000;
  Queue<int> queue;
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> consumers;
  for (int i = 0; i < 3; ++i) {
    consumers.emplace_back([&] {
      while (auto item = queue.pop()) sum += *item;
    });
  }
  for (int i = 1; i <= kItems; ++i) queue.push(i);
  queue.close();
  for (auto& consumer : consumers) consumer.join();
  EXPECT_EQ(sum, int64_t{kItems} * (kItems + 1) / 2);
}

TEST(Queue, PopForGivesUp) {
  Queue<int> queue;
  EXPECT_EQ(queue.pop_for(std::chrono::milliseconds(1)), std::nullopt);
}

TEST(ThreadPool, RunReachesEveryWorkerOnce) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    ASSERT_EQ(pool.size(), threads);
    std::vector<std::atomic<int>> seen(static_cast<size_t>(threads));
    for (int i = 0; i < 200; ++i) pool.run([&](int worker) { seen[static_cast<size_t>(worker)]++; });
    for (const auto& count : seen) EXPECT_EQ(count, 200);
  }
}

TEST(ThreadPool, ParallelForCoversTheRangeOnce) {
  ThreadPool pool(3);
  for (const int64_t n : {0, 1, 5, 64, 1000}) {
    for (const int64_t grain : {1, 7, 64}) {
      std::vector<std::atomic<int>> hits(static_cast<size_t>(n));
      pool.parallel_for(n, grain, [&](int64_t begin, int64_t end, int worker) {
        ASSERT_LT(worker, 3);
        for (int64_t i = begin; i < end; ++i) hits[static_cast<size_t>(i)]++;
      });
      for (const auto& hit : hits) EXPECT_EQ(hit, 1);
    }
  }
}

TEST(ThreadPool, WakesWorkersThatSleep) {
  ThreadPool pool(2);
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // long past the spinning
    std::atomic<int> count{0};
    pool.run([&](int) { ++count; });
    EXPECT_EQ(count, 2);
  }
}

TEST(ThreadPool, SleepsUntilTheLastWorkerIsDone) {
  ThreadPool pool(3);
  for (int i = 0; i < 20; ++i) {
    std::atomic<int> done{0};
    pool.parallel_for(3, 1, [&](int64_t, int64_t, int worker) {
      if (worker > 0) std::this_thread::sleep_for(std::chrono::milliseconds(3));  // far beyond the spinning
      ++done;
    });
    ASSERT_EQ(done, 3);
  }
}

TEST(ThreadPool, ShortRegionsFollowEachOther) {
  ThreadPool pool(4);
  for (int64_t i = 0; i < 20'000; ++i) {
    const int64_t n = 1 + i % 9;
    std::atomic<int64_t> sum{0};  // a worker that came too late for its region would touch another one's
    pool.parallel_for(n, 1, [&](int64_t begin, int64_t, int) { sum += begin + 1; });
    ASSERT_EQ(sum, n * (n + 1) / 2);
    if (i % 5000 == 0) pool.run([&](int) { sum -= 1; });
  }
}

TEST(Random, IsAFunctionOfItsArgumentsAndUniform) {
  EXPECT_EQ(random_bits(1, 2, 3), random_bits(1, 2, 3));
  std::set<uint64_t> distinct;
  for (uint64_t i = 0; i < 1000; ++i) {
    distinct.insert(random_bits(i, 0, 0));
    distinct.insert(random_bits(0, i + 1, 0));
    distinct.insert(random_bits(0, 0, i + 1));
  }
  EXPECT_EQ(distinct.size(), 3000U);
  double sum = 0;
  constexpr int kDraws = 100000;
  for (int i = 0; i < kDraws; ++i) {
    const float value = random_uniform(7, 9, static_cast<uint64_t>(i));
    ASSERT_GE(value, 0.0F);
    ASSERT_LT(value, 1.0F);
    sum += value;
  }
  // Standard error of the mean: 0.2887 / sqrt(1e5) = 9e-4; five of them.
  EXPECT_NEAR(sum / kDraws, 0.5, 5e-3);
}

TEST(WaitAlert, EndsWithTheAnswerOrAfterTheTime) {
  using std::chrono::milliseconds;
  std::promise<int> promise;
  auto future = promise.get_future();
  const auto start = std::chrono::steady_clock::now();
  wait_alert(future, milliseconds(0));
  wait_alert(future, milliseconds(5));
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(5));
  EXPECT_NE(future.wait_for(milliseconds(0)), std::future_status::ready);
  std::thread answer([&] { promise.set_value(7); });
  wait_alert(future, std::chrono::hours(1));
  EXPECT_EQ(future.wait_for(milliseconds(0)), std::future_status::ready);
  answer.join();
  EXPECT_EQ(future.get(), 7);
}

}  // namespace
}  // namespace fathom

// The real thread, with an executor that has a thread of its own. Meant for TSan as well.
#include "sched/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <random>

#include "base/queue.h"
#include "sched/fake_executor.h"
#include "sched/manual_clock.h"
#include "sched/schedule_judge.h"

namespace fathom::sched {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class ThreadedExecutor final : public Executor {
 public:
  explicit ThreadedExecutor(const ExecutorLimits& limits, milliseconds step_time = milliseconds(0))
      : fake_(limits), step_time_(step_time), thread_([this] { work(); }) {}
  ~ThreadedExecutor() override {
    open_gate();
    jobs_.close();
    thread_.join();
  }
  const ExecutorLimits& limits() const override { return fake_.limits(); }
  std::future<Result<StepResult>> step(BatchPlan plan) override {
    Job job{std::move(plan), {}};
    auto future = job.done.get_future();
    jobs_.push(std::move(job));
    return future;
  }
  FakeExecutor& fake() { return fake_; }

  // Steps from this one on wait until the gate is opened.
  void close_gate(uint64_t from) { closed_from_ = from; }
  void open_gate() {
    closed_from_ = kOpen;
    closed_from_.notify_all();
  }

 private:
  static constexpr uint64_t kOpen = ~uint64_t{0};
  struct Job {
    BatchPlan plan;
    std::promise<Result<StepResult>> done;
  };
  void work() {
    while (auto job = jobs_.pop()) {
      if (step_time_.count() > 0) std::this_thread::sleep_for(step_time_);
      for (uint64_t from = closed_from_; job->plan.step >= from; from = closed_from_) closed_from_.wait(from);
      fake_.submit(std::move(job->plan));
      job->done.set_value(fake_.complete());
    }
  }

  FakeExecutor fake_;
  milliseconds step_time_;
  std::atomic<uint64_t> closed_from_{kOpen};
  Queue<Job> jobs_;
  std::thread thread_;
};

ExecutorLimits small_limits() {
  return {.max_slots = 6,
          .num_pages = 60,
          .page_size = 4,
          .max_context = 200,
          .vocab_size = 100,
          .max_step_tokens = 64};
}

GenerateRequest make_request(const std::string& id, int32_t first, int32_t length, int32_t outputs) {
  GenerateRequest request;
  request.id = id;
  for (int32_t i = 0; i < length; ++i) request.prompt.push_back((first + i) % 100);
  request.sampling.max_new_tokens = outputs;
  return request;
}

// Tens of them leave time to this thread even where other programs take the processors.
constexpr milliseconds kLongStep(20);

struct Answer {
  std::vector<int32_t> tokens;
  std::optional<FinishReason> finish;
};

Answer read_all(TokenStream& stream) {
  Answer answer;
  while (!answer.finish) {
    auto event = stream.next(seconds(30));
    if (!event) break;
    for (const auto& output : event->outputs) answer.tokens.push_back(output.token);
    answer.finish = event->finish;
  }
  return answer;
}

TEST(SchedulerTest, ManyClientsGetTheirOwnTokens) {
  ThreadedExecutor executor(small_limits());
  SchedulerOptions options;
  options.chunked_prefill_size = 16;
  options.init_new_token_ratio = 0.1;
  Scheduler scheduler(options, executor);
  scheduler.start();
  std::atomic<bool> done{false};
  std::thread watcher([&] {
    while (!done) {
      SchedulerStats stats = scheduler.stats();
      EXPECT_LE(stats.used_tokens + stats.cached_tokens, stats.total_tokens);
      (void)scheduler.flush_cache();
      std::this_thread::sleep_for(milliseconds(1));
    }
  });
  std::vector<std::thread> clients;
  std::atomic<int> complete{0};
  for (int client = 0; client < 4; ++client) {
    clients.emplace_back([&, client] {
      std::mt19937 random(static_cast<uint32_t>(client));
      for (int i = 0; i < 40; ++i) {
        auto request =
            make_request(fmt::format("{}-{}", client, i), static_cast<int32_t>(random() % 3) * 30,
                         1 + static_cast<int32_t>(random() % 60), static_cast<int32_t>(random() % 50));
        auto alone = answer_alone(request, small_limits(), 240);
        auto stream = scheduler.submit(request);
        ASSERT_TRUE(stream.ok()) << stream.error().message;
        bool cancelled = random() % 4 == 0;
        if (cancelled) {
          auto first = (*stream)->next(milliseconds(random() % 3));
          scheduler.cancel(request.id);
          if (!first || !first->finish) {
            ASSERT_TRUE(read_all(**stream).finish);
          }
          continue;
        }
        Answer answer = read_all(**stream);
        ASSERT_TRUE(answer.finish);
        ASSERT_EQ(answer.tokens, alone.tokens);
        ++complete;
      }
    });
  }
  for (auto& client : clients) client.join();
  done = true;
  watcher.join();
  EXPECT_GT(complete, 80);
  EXPECT_TRUE(scheduler.drain(seconds(10)));
  SchedulerStats stats = scheduler.stats();
  EXPECT_EQ(stats.running_requests, 0);
  EXPECT_EQ(stats.waiting_requests, 0);
  EXPECT_EQ(stats.used_tokens, 0);
  EXPECT_EQ(stats.finished_requests + stats.aborted_requests, 160);
}

TEST(SchedulerTest, DrainFinishesTheOldAndRefusesTheNew) {
  ThreadedExecutor executor(small_limits(), kLongStep);
  Scheduler scheduler({}, executor);
  scheduler.start();
  auto request = make_request("a", 0, 10, 30);
  auto stream = scheduler.submit(request);
  ASSERT_TRUE(stream.ok());
  EXPECT_FALSE(scheduler.drain(milliseconds(1)));
  auto refused = scheduler.submit(make_request("b", 0, 10, 30));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
  EXPECT_TRUE(scheduler.drain(seconds(30)));
  EXPECT_EQ(read_all(**stream).tokens, answer_alone(request, small_limits(), 240).tokens);
}

TEST(SchedulerTest, StopAbortsWhatIsLeft) {
  ThreadedExecutor executor(small_limits(), kLongStep);
  auto scheduler = std::make_unique<Scheduler>(SchedulerOptions{}, executor);
  scheduler->start();
  std::vector<std::shared_ptr<TokenStream>> streams;
  for (int i = 0; i < 10; ++i) {
    streams.push_back(*scheduler->submit(make_request(std::to_string(i), i, 20, 150)));
  }
  (void)streams[0]->next(seconds(10));
  scheduler->stop();
  for (auto& stream : streams) {
    Answer answer = read_all(*stream);
    ASSERT_TRUE(answer.finish);
    EXPECT_EQ(answer.finish->kind, FinishReason::Kind::kAbort);
  }
  EXPECT_FALSE(scheduler->submit(make_request("late", 0, 5, 1)).ok());
  EXPECT_FALSE(scheduler->flush_cache().ok());
}

TEST(SchedulerTest, ASchedulerThatNeverStartedEndsItsRequests) {
  FakeExecutor executor(small_limits());
  std::shared_ptr<TokenStream> stream;
  {
    Scheduler scheduler({}, executor);
    stream = *scheduler.submit(make_request("a", 0, 5, 1));
    EXPECT_EQ(scheduler.stats().waiting_requests, 1);
  }
  EXPECT_EQ(read_all(*stream).finish->kind, FinishReason::Kind::kAbort);
}

TEST(SchedulerTest, TheQueueHasALimit) {
  FakeExecutor executor(small_limits());
  SchedulerOptions options;
  options.max_queued_requests = 3;
  Scheduler scheduler(options, executor);  // not started: all of them wait
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(scheduler.submit(make_request(std::to_string(i), 0, 5, 1)).ok());
  auto refused = scheduler.submit(make_request("4", 0, 5, 1));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().message, "The request queue is full.");
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
}

TEST(SchedulerTest, AFaultReachesEveryStreamAndLaterSubmits) {
  for (int round = 0; round < 50; ++round) {  // whoever was told of it is refused, however soon it asks again
    ThreadedExecutor executor(small_limits());
    executor.fake().fail_at_step(3);
    Scheduler scheduler({}, executor);
    scheduler.start();
    auto stream = scheduler.submit(make_request("a", 0, 10, 100));
    ASSERT_TRUE(stream.ok());
    Answer answer = read_all(**stream);
    ASSERT_TRUE(answer.finish && answer.finish->error);
    EXPECT_EQ(answer.finish->error->message, "the device is lost");
    auto refused = scheduler.submit(make_request("b", 0, 10, 100));
    ASSERT_FALSE(refused.ok()) << "round " << round;
    EXPECT_NE(refused.error().message.find("the device is lost"), std::string::npos);
    EXPECT_TRUE(scheduler.drain(seconds(10)));
  }
}

TEST(SchedulerTest, CancelAllEndsEverything) {
  ThreadedExecutor executor(small_limits(), milliseconds(1));
  Scheduler scheduler({}, executor);
  scheduler.start();
  std::vector<std::shared_ptr<TokenStream>> streams;
  for (int i = 0; i < 10; ++i) {
    streams.push_back(*scheduler.submit(make_request(std::to_string(i), i, 20, 150)));
  }
  scheduler.cancel_all();
  for (auto& stream : streams) EXPECT_TRUE(read_all(*stream).finish);
  auto again = scheduler.submit(make_request("again", 0, 5, 3));
  EXPECT_EQ(read_all(**again).tokens.size(), 3U);
}

TEST(SchedulerTest, ARequestIsCountedFromTheStart) {
  ThreadedExecutor executor(small_limits());
  executor.close_gate(0);  // its first step lasts
  Scheduler scheduler({}, executor);
  scheduler.start();
  auto stream = scheduler.submit(make_request("a", 0, 10, 3));
  for (int look = 0; look < 50; ++look) {
    const SchedulerStats stats = scheduler.stats();
    EXPECT_EQ(stats.running_requests + stats.waiting_requests, 1) << "look " << look;
    std::this_thread::sleep_for(milliseconds(1));
  }
  executor.open_gate();
  EXPECT_TRUE(read_all(**stream).finish);
}

// Health is told from it: after a quiet hour the first step has not taken an hour.
TEST(SchedulerTest, AStallIsCountedFromWhenWorkCame) {
  ThreadedExecutor executor(small_limits());
  executor.close_gate(0);
  ManualClock clock;
  Scheduler scheduler({}, executor, clock);
  clock.ns = int64_t{3600} * 1'000'000'000;
  scheduler.start();
  auto stream = scheduler.submit(make_request("a", 0, 10, 3));
  bool ran = false;
  while (!ran) {
    const SchedulerStats stats = scheduler.stats();
    ASSERT_EQ(stats.running_requests + stats.waiting_requests, 1);
    ASSERT_EQ(stats.progress_ns, clock.ns);
    ran = stats.running_requests == 1;  // told although its step has not ended
  }
  executor.open_gate();
  EXPECT_TRUE(read_all(**stream).finish);
}

// Leaves time between whatever the scheduler does.
class SlowClock final : public Clock {
 public:
  int64_t now_ns() const override {
    std::this_thread::sleep_for(milliseconds(1));
    return steady_clock().now_ns();
  }
};

TEST(SchedulerTest, WhoHasFlushedSeesAnEmptyCache) {
  ThreadedExecutor executor(small_limits());
  const SlowClock clock;
  Scheduler scheduler({}, executor, clock);
  scheduler.start();
  for (int round = 0; round < 10; ++round) {
    auto stream = scheduler.submit(make_request("a", 0, 40, 3));
    ASSERT_TRUE(read_all(**stream).finish);
    ASSERT_TRUE(scheduler.flush_cache().ok()) << "round " << round;
    const SchedulerStats stats = scheduler.stats();
    EXPECT_EQ(stats.used_tokens, 0) << "round " << round;
    EXPECT_EQ(stats.cached_tokens, 0) << "round " << round;
  }
}

// With two stages a stop token ends a request when two of its steps are out already: its pages come back
// after the answer. The gate holds the first of the two until the flush has come.
TEST(SchedulerTest, AFlushWaitsForWhatHasBeenAnswered) {
  auto request = make_request("a", 0, 40, 20);
  const auto tokens = answer_alone(request, small_limits(), 240).tokens;
  ASSERT_EQ(std::count(tokens.begin(), tokens.begin() + 4, tokens[4]), 0);
  request.sampling.stop_token_ids = {tokens[4]};
  ThreadedExecutor executor(small_limits());
  executor.close_gate(5);  // the prompt's step gave the first output
  SchedulerOptions options;
  options.stages = 2;
  Scheduler scheduler(options, executor);
  scheduler.start();
  auto stream = scheduler.submit(request);
  ASSERT_EQ(read_all(**stream).tokens.size(), 5U);
  auto flushed = std::async(std::launch::async, [&] { return scheduler.flush_cache(); });
  EXPECT_EQ(flushed.wait_for(milliseconds(50)), std::future_status::timeout);
  executor.open_gate();
  EXPECT_TRUE(flushed.get().ok());
  EXPECT_EQ(scheduler.stats().used_tokens, 0);
  EXPECT_EQ(scheduler.stats().cached_tokens, 0);
}

TEST(SchedulerTest, AStopAnswersAFlushThatWaits) {
  auto request = make_request("a", 0, 40, 20);
  request.sampling.stop_token_ids = {answer_alone(request, small_limits(), 240).tokens[0]};
  ThreadedExecutor executor(small_limits());
  executor.close_gate(1);
  SchedulerOptions options;
  options.stages = 2;
  Scheduler scheduler(options, executor);
  scheduler.start();
  auto stream = scheduler.submit(request);
  ASSERT_TRUE(read_all(**stream).finish);
  auto flushed = std::async(std::launch::async, [&] { return scheduler.flush_cache(); });
  EXPECT_EQ(flushed.wait_for(milliseconds(50)), std::future_status::timeout);
  auto stopped = std::async(std::launch::async, [&] { scheduler.stop(); });
  EXPECT_EQ(stopped.wait_for(milliseconds(50)), std::future_status::timeout);
  executor.open_gate();
  stopped.get();
  (void)flushed.get();  // flushed, or refused if it came after the stop: not left waiting
}

TEST(SchedulerTest, AFlushIsRefusedWhileRequestsRun) {
  ThreadedExecutor executor(small_limits(), kLongStep);
  Scheduler scheduler({}, executor);
  scheduler.start();
  auto stream = scheduler.submit(make_request("a", 0, 40, 100));
  ASSERT_TRUE((*stream)->next(seconds(30)));
  const auto flushed = scheduler.flush_cache();
  ASSERT_FALSE(flushed.ok());
  EXPECT_EQ(flushed.error().code, ErrorCode::kUnavailable);
  scheduler.cancel("a");
  EXPECT_TRUE(read_all(**stream).finish);
  EXPECT_TRUE(scheduler.flush_cache().ok());  // what was cancelled does not count
}

// Its steps never end.
class HangingExecutor final : public Executor {
 public:
  const ExecutorLimits& limits() const override { return limits_; }
  std::future<Result<StepResult>> step(BatchPlan /*plan*/) override {
    return promises_.emplace_back().get_future();
  }

 private:
  const ExecutorLimits limits_ = small_limits();
  std::deque<std::promise<Result<StepResult>>> promises_;
};

TEST(Scheduler, AStepThatHangsEndsEveryRequest) {
  HangingExecutor executor;
  SchedulerOptions options;
  options.watchdog_timeout = milliseconds(50);
  Scheduler scheduler(options, executor);
  scheduler.start();
  std::vector<std::shared_ptr<TokenStream>> streams;
  for (int i = 0; i < 3; ++i) {
    GenerateRequest request;
    request.id = fmt::format("{}", i);
    request.prompt = {1, 2, 3};
    streams.push_back(*scheduler.submit(request));
  }
  for (auto& stream : streams) {
    const auto end = read_all(*stream).finish;
    ASSERT_TRUE(end.has_value());
    EXPECT_EQ(end->kind, FinishReason::Kind::kAbort);
  }
  EXPECT_TRUE(scheduler.hangs());
  ASSERT_FALSE(scheduler.state().ok());
  EXPECT_NE(scheduler.state().error().message.find("has not ended for 0.1 s"), std::string::npos)
      << scheduler.state().error().message;
  scheduler.stop();  // does not wait for the step
}

}  // namespace
}  // namespace fathom::sched

// Time that the scheduler itself takes for a step: one plan() and one account(), beside an executor that
// costs nothing and is not counted. In CPU time of the thread, so that other processes do not count either.
//
//   sched_sched_bench [running requests] [context]
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <deque>
#include <string>
#include <vector>

#include "base/clock.h"
#include "sched/scheduler_core.h"

namespace fathom::sched {
namespace {

constexpr int32_t kPageSize = 16;
constexpr int kWarmUp = 50;
constexpr int kSteps = 1000;

int64_t cpu_time_ns() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

StepResult answer(const BatchPlan& plan) {
  StepResult result;
  result.step = plan.step;
  result.rows.resize(plan.rows.size());
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    result.rows[i].slot = plan.rows[i].slot;
    if (plan.rows[i].sample) result.rows[i].outputs.resize(1);
  }
  return result;
}

class Bench {
 public:
  Bench(int32_t running, int32_t context, bool queued)
      : running_(running),
        limits_{.max_slots = running,
                .num_pages = (running + 4) * (context + 2048) / kPageSize,
                .page_size = kPageSize,
                .max_context = 2 * context + 4096,
                .vocab_size = 129280,
                .max_step_tokens = 8192},
        core_(options(), limits_, steady_clock()) {
    for (int32_t i = 0; i < running; ++i) add(context, 1000000);
    while (stats_rows_ < running) step(nullptr);
    for (int32_t i = 0; queued && i < 1000; ++i) add(context, 1000000);
  }

  // Decode rows only.
  void decode(const char* name) {
    std::vector<double> times;
    for (int i = 0; i < kWarmUp; ++i) step(nullptr);
    for (int i = 0; i < kSteps; ++i) step(&times);
    print(name, times);
  }

  // One request in sixteen is cancelled, and a new prompt of `prompt` tokens comes instead, every few steps.
  void mixed(const char* name, int32_t prompt) {
    std::vector<double> times;
    for (int i = 0; i < kWarmUp + kSteps; ++i) {
      if (i % 4 == 0) {
        core_.cancel(ids_.front());
        ids_.pop_front();
        add(prompt, 1000000);
      }
      step(i < kWarmUp ? nullptr : &times);
    }
    print(name, times);
  }

 private:
  static SchedulerOptions options() {
    SchedulerOptions options;
    options.init_new_token_ratio = 0.0;  // admit them all
    options.clip_max_new_tokens_estimation = 1;
    return options;
  }

  void add(int32_t prompt, int32_t outputs) {
    GenerateRequest request;
    request.id = std::to_string(next_id_);
    for (int32_t i = 0; i < prompt; ++i)
      request.prompt.push_back((i * 7 + next_id_ * 13 + (i >> 4)) % 129280);
    request.sampling.max_new_tokens = outputs;
    request.sampling.stop_token_ids = {129279};
    ids_.push_back(request.id);
    ++next_id_;
    streams_.push_back(std::make_shared<TokenStream>());
    core_.add(std::move(request), streams_.back());
  }

  // The overlapped loop with one plan ahead; only the scheduler's part is timed.
  void step(std::vector<double>* times) {
    int64_t start = cpu_time_ns();
    auto plan = core_.plan();
    int64_t planned = cpu_time_ns() - start;
    if (plan) {
      stats_rows_ = static_cast<int32_t>(std::count_if(plan->rows.begin(), plan->rows.end(),
                                                       [](const auto& row) { return row.tokens.empty(); }));
      results_.push_back(answer(*plan));
    }
    if (core_.can_plan_ahead() && plan) return;
    StepResult result = std::move(results_.front());
    results_.pop_front();
    start = cpu_time_ns();
    core_.account(std::move(result));
    int64_t accounted = cpu_time_ns() - start;
    if (times != nullptr) times->push_back(static_cast<double>(planned + accounted) * 1e-3);
    drain();
  }

  // The consumers' part, not timed.
  void drain() {
    std::erase_if(streams_, [](const auto& stream) {
      while (auto event = stream->next(std::chrono::milliseconds(0))) {
        if (event->finish) return true;
        if (!event->outputs.empty()) break;  // one a step
      }
      return false;
    });
  }

  void print(const char* name, std::vector<double> times) const {
    std::sort(times.begin(), times.end());
    double sum = 0.0;
    for (double time : times) sum += time;
    fmt::print("{:<28} {:>4} running  min {:6.1f}  median {:6.1f}  mean {:6.1f}  p99 {:7.1f} us/step\n", name,
               running_, times.front(), times[times.size() / 2], sum / static_cast<double>(times.size()),
               times[times.size() * 99 / 100]);
  }

  int32_t running_;
  ExecutorLimits limits_;
  SchedulerCore core_;
  std::deque<std::string> ids_;
  std::vector<std::shared_ptr<TokenStream>> streams_;
  std::deque<StepResult> results_;
  int32_t next_id_ = 0;
  int32_t stats_rows_ = 0;
};

int run(int argc, char** argv) {
  int32_t running = argc > 1 ? std::atoi(argv[1]) : 256;
  int32_t context = argc > 2 ? std::atoi(argv[2]) : 2000;
  if (running < 1 || context < 1) {
    fmt::print(stderr, "usage: {} [running requests >= 1] [context >= 1]\n", argv[0]);
    return 2;
  }
  Bench(running, context, false).decode("decode");
  Bench(running, context, true).decode("decode, 1000 queued");
  Bench(running, context, false).mixed("mixed, a prompt in 4 steps", context);
  return 0;
}

}  // namespace
}  // namespace fathom::sched

int main(int argc, char** argv) {
  return fathom::sched::run(argc, argv);
}

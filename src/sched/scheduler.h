// The scheduler's thread: takes requests from any thread, drives the executor, pushes tokens. Every decision
// is SchedulerCore's; this adds the queue in, the thread and the waiting. Idle, it sleeps.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "core/executor.h"
#include "core/request.h"
#include "sched/scheduler_core.h"
#include "sched/scheduler_options.h"

namespace fathom::sched {

class Scheduler final : public RequestSink {
 public:
  // `executor` and `clock` must outlive the scheduler. Nothing runs before start().
  Scheduler(const SchedulerOptions& options, Executor& executor, const Clock& clock = steady_clock());
  ~Scheduler() override;  // stops

  void start();
  // Refuses new requests (kUnavailable) and waits until the accepted ones are done. False: `timeout` came
  // first; they go on.
  bool drain(std::chrono::milliseconds timeout);
  // Aborts what is left and joins the thread. Final.
  void stop();

  // Prompt and output tokens that one request can have at most: the context, or the pool if that is smaller.
  int32_t max_request_tokens() const { return core_.max_request_tokens(); }

  Result<std::shared_ptr<TokenStream>> submit(GenerateRequest request) override;
  void cancel(const std::string& id) override;
  void finish(const std::string& id) override;
  void cancel_all() override;
  // Waits for the pages of requests that have been answered or cancelled; stats() then shows an empty cache.
  // An error while others run or wait.
  Result<void> flush_cache() override;
  SchedulerStats stats() const override;
  // The device fault that ended the executor, if one did: every request fails from then on. Thread safe.
  Result<void> state() const;
  // That was a step that did not end in time (SchedulerOptions::watchdog_timeout): the executor cannot be
  // destroyed, for it waits for that step. Thread safe.
  bool hangs() const { return hangs_.load(std::memory_order_acquire); }

 private:
  struct Submit {
    GenerateRequest request;
    std::shared_ptr<TokenStream> stream;
  };
  struct Cancel {
    std::string id;
    bool finished;
  };
  struct CancelAll {};
  struct Flush {
    std::promise<Result<void>> done;
  };
  using Command = std::variant<Submit, Cancel, CancelAll, Flush>;

  void loop();
  void post(Command command);
  bool take_commands(bool wait);
  void execute(Command command);
  void answer_flushes();
  void publish();
  void account(Result<StepResult> result);
  Result<StepResult> wait_for(std::future<Result<StepResult>>& result);

  const SchedulerOptions options_;
  Executor& executor_;
  const Clock& clock_;
  SchedulerCore core_;          // the thread's, but for its constant limits
  std::vector<Flush> flushes_;  // the thread's: to be answered
  std::thread thread_;

  std::atomic<bool> hangs_{false};
  mutable std::mutex mutex_;
  std::condition_variable wake_;  // of the thread
  std::condition_variable idle_changed_;
  std::vector<Command> inbox_;
  SchedulerStats stats_;       // as of the last turn of the loop
  size_t waiting_ = 0;         // requests in the core's queue or on the way to it
  size_t inbox_requests_ = 0;  // of them, still in the inbox
  bool idle_ = true;
  bool started_ = false;
  bool draining_ = false;
  bool stopping_ = false;
  bool stopped_ = false;
  std::optional<Error> fault_;
};

}  // namespace fathom::sched

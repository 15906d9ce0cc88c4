#include "sched/scheduler.h"

#include <algorithm>
#include <utility>

#include "base/alert.h"
#include "base/log.h"
#include "base/thread_start.h"

namespace fathom::sched {
namespace {

template <class... Visitors>
struct Overloaded : Visitors... {
  using Visitors::operator()...;
};
template <class... Visitors>
Overloaded(Visitors...) -> Overloaded<Visitors...>;

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options, Executor& executor, const Clock& clock)
    : options_(options),
      executor_(executor),
      clock_(clock),
      core_(options, executor.limits(), clock),
      stats_(core_.stats()) {}

Scheduler::~Scheduler() {
  stop();
}

void Scheduler::start() {
  std::lock_guard lock(mutex_);
  FATHOM_CHECK(!started_ && !stopping_, "a scheduler is started once");
  started_ = true;
  thread_ = std::thread([this] {
    begin_thread("scheduler");
    loop();
  });
}

bool Scheduler::drain(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  draining_ = true;
  return idle_changed_.wait_for(lock, timeout, [&] { return (idle_ && inbox_.empty()) || stopped_; });
}

void Scheduler::stop() {
  {
    std::lock_guard lock(mutex_);
    if (stopped_ || stopping_) return;
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) {
    thread_.join();
  } else {
    loop();  // never started: ends what was submitted
  }
}

Result<std::shared_ptr<TokenStream>> Scheduler::submit(GenerateRequest request) {
  FATHOM_TRY(core_.admissible(request));
  auto stream = std::make_shared<TokenStream>();
  {
    std::lock_guard lock(mutex_);
    if (fault_) return fault_->with_context("the engine has failed");
    if (draining_ || stopping_) return error(ErrorCode::kUnavailable, "The server is shutting down.");
    if (options_.max_queued_requests >= 0 &&
        waiting_ + inbox_requests_ >= static_cast<size_t>(options_.max_queued_requests)) {
      return error(ErrorCode::kUnavailable, "The request queue is full.");
    }
    // The thread has not seen it, and whoever looks must not think that it waits for long.
    if (stats_.running_requests + stats_.waiting_requests == 0 && inbox_requests_ == 0)
      stats_.progress_ns = clock_.now_ns();
    inbox_.push_back(Submit{std::move(request), stream});
    ++inbox_requests_;
  }
  wake_.notify_one();
  return stream;
}

void Scheduler::cancel(const std::string& id) {
  post(Cancel{id, false});
}

void Scheduler::finish(const std::string& id) {
  post(Cancel{id, true});
}

void Scheduler::cancel_all() {
  post(CancelAll{});
}

Result<void> Scheduler::flush_cache() {
  Flush flush;
  auto done = flush.done.get_future();
  {
    std::lock_guard lock(mutex_);
    if (stopping_ || !started_) {
      return error(ErrorCode::kUnavailable, "the scheduler does not run");
    }
    inbox_.push_back(std::move(flush));
  }
  wake_.notify_one();
  return done.get();
}

Result<void> Scheduler::state() const {
  std::lock_guard lock(mutex_);
  if (fault_) return fault_->with_context("the engine has failed");
  return {};
}

SchedulerStats Scheduler::stats() const {
  std::lock_guard lock(mutex_);
  SchedulerStats stats = stats_;
  stats.waiting_requests += static_cast<int64_t>(inbox_requests_);
  return stats;
}

void Scheduler::post(Command command) {
  {
    std::lock_guard lock(mutex_);
    inbox_.push_back(std::move(command));
  }
  wake_.notify_one();
}

void Scheduler::execute(Command command) {
  std::visit(
      Overloaded{[&](Submit& submit) { core_.add(std::move(submit.request), std::move(submit.stream)); },
                 [&](Cancel& cancel) { cancel.finished ? core_.finish(cancel.id) : core_.cancel(cancel.id); },
                 [&](CancelAll&) { core_.cancel_all(); },
                 [&](Flush& flush) { flushes_.push_back(std::move(flush)); }},
      command);
}

// Executes what came in; with `wait`, sleeps until something does. False: the scheduler shall stop.
bool Scheduler::take_commands(bool wait) {
  std::vector<Command> commands;
  bool stop;
  {
    std::unique_lock lock(mutex_);
    if (wait) wake_.wait(lock, [&] { return stopping_ || !inbox_.empty(); });
    commands.swap(inbox_);
    const size_t taken = std::exchange(inbox_requests_, 0);
    waiting_ += taken;
    stats_.waiting_requests += static_cast<int64_t>(taken);  // until the next turn ends
    if (!commands.empty()) idle_ = false;
    stop = stopping_;
  }
  for (Command& command : commands) execute(std::move(command));
  return !stop;
}

// A client that has its answer may flush at once, while a step that was submitted early still touches the
// answer's pages: it is told when they are back. What it was told is published before, so that whoever looks
// at the figures next sees the cache that it has emptied.
void Scheduler::answer_flushes() {
  if (flushes_.empty() || core_.settling()) return;
  const Result<void> flushed = core_.flush_cache();
  publish();
  for (Flush& flush : flushes_) flush.done.set_value(flushed);
  flushes_.clear();
}

// Makes the core's state visible to other threads.
void Scheduler::publish() {
  SchedulerStats stats = core_.stats();
  const bool idle = core_.idle() && !core_.has_held_events();
  {
    std::lock_guard lock(mutex_);
    stats.progress_ns = std::max(stats.progress_ns, stats_.progress_ns);  // submit() may be ahead
    stats_ = stats;
    waiting_ = core_.waiting();
    fault_ = core_.fault();
    idle_ = idle;
  }
  if (idle) idle_changed_.notify_all();
}

Result<StepResult> Scheduler::wait_for(std::future<Result<StepResult>>& result) {
  const auto longest = options_.watchdog_timeout;
  if (longest.count() == 0 || result.wait_for(longest) == std::future_status::ready) return result.get();
  hangs_.store(true, std::memory_order_release);
  return error(ErrorCode::kDeadlineExceeded,
               "a step has not ended for {:.1f} s (--watchdog-timeout): the device hangs",
               std::chrono::duration<double>(longest).count());
}

// A fault is known to submit() and state() before any stream ends of it: whoever was told of it is refused
// when it asks again.
void Scheduler::account(Result<StepResult> result) {
  if (!result.ok()) {
    std::lock_guard lock(mutex_);
    if (!fault_) fault_ = result.error();
  }
  core_.hold_events();
  core_.account(std::move(result));
}

void Scheduler::loop() {
  std::deque<std::future<Result<StepResult>>> results;
  bool drafts = false;  // of the last step
  bool sleep = false;
  while (take_commands(sleep)) {
    answer_flushes();
    // The next step is submitted before the last one's result is looked at: the executor never waits.
    auto plan = core_.plan();
    const bool planned = plan.has_value();
    if (planned) {
      drafts = plan->has_drafts();
      results.push_back(executor_.step(std::move(*plan)));
      sleep = false;
      publish();  // the step may be long
    }
    core_.tell();
    if (planned && core_.can_plan_ahead()) continue;
    sleep = results.empty();
    if (!results.empty()) {
      if (drafts) wait_alert(results.front(), executor_.limits().alert);
      account(wait_for(results.front()));
      results.pop_front();
      if (core_.fault()) results.clear();
    }
    publish();
  }
  core_.cancel_all();
  for (auto& result : results) {
    if (!core_.fault()) account(wait_for(result));
  }
  core_.tell();
  publish();
  {
    std::lock_guard lock(mutex_);
    for (Command& command : inbox_) execute(std::move(command));
    inbox_.clear();
    core_.cancel_all();
    stopped_ = true;
    idle_ = true;
    idle_changed_.notify_all();
  }
  answer_flushes();
}

}  // namespace fathom::sched

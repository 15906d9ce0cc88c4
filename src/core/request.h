// A request as the front wing hands it to the scheduler, what comes back, and the seam between them.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "core/cache_miss.h"
#include "core/sampling.h"
#include "core/token_mask.h"

namespace fathom {

struct GenerateRequest {
  std::string id;               // unique among the running ones
  std::vector<int32_t> prompt;  // token ids in [0, vocab); at least one
  SamplingParams sampling;
  LogprobParams logprobs;
  std::shared_ptr<const TokenMaskSource> mask;  // what the output must look like; null: anything
  int32_t priority = 0;                         // larger first, where the policy looks at it
  std::string cache_namespace;                  // requests share cached prefixes within one namespace only
  ExplainMiss explain_miss = ExplainMiss::kNo;
  std::optional<int32_t> data_parallel_rank;  // the scheduler that it must go to, where there are several
};

struct FinishReason {
  enum class Kind {
    kStop,    // a stop id was chosen: `matched_token`
    kLength,  // max_new_tokens or the context is full
    kAbort,   // cancelled, or `error` says why
  };
  Kind kind = Kind::kStop;
  std::optional<int32_t> matched_token;
  std::optional<Error> error;
};

// How well a request's tokens were guessed (speculative decoding).
struct SpeculationCounts {
  int64_t verify_steps = 0;     // decode steps that had room for guesses
  int64_t draft_tokens = 0;     // guessed
  int64_t accepted_tokens = 0;  // of them, right
  // [n]: verify steps in which n guesses were right.
  std::vector<int32_t> histogram;

  // Tokens that a verify step gave.
  double accept_length() const {
    return verify_steps == 0 ? 0.0
                             : 1.0 + static_cast<double>(accepted_tokens) / static_cast<double>(verify_steps);
  }
  double accept_rate() const {
    return draft_tokens == 0 ? 0.0 : static_cast<double>(accepted_tokens) / static_cast<double>(draft_tokens);
  }
};

// What the scheduler tells of a request since the last event.
struct TokenEvent {
  std::vector<TokenOutput> outputs;  // new tokens, in order; a matched stop token is among them
  // Prompt positions from LogprobParams::prompt_start on, once, with the event that carries the first output.
  std::vector<TokenOutput> prompt_logprobs;
  std::optional<FinishReason> finish;            // the last event has it
  int32_t cached_tokens = 0;                     // prompt tokens taken from the prefix cache
  int32_t retractions = 0;                       // times the request was preempted so far
  std::optional<CacheMiss> cache_miss;           // once, with the first event, where it was asked for
  std::optional<SpeculationCounts> speculation;  // so far; nothing where the executor does not guess tokens
  int64_t time_ns = 0;  // when it was pushed, by the scheduler's clock; 0: nobody looked
};

// Which of a consumer's streams have events, so that it waits for all of them at once. Thread safe.
class ReadyStreams {
 public:
  void add(size_t stream) {
    {
      std::lock_guard lock(mutex_);
      streams_.push_back(stream);
    }
    ready_.notify_one();
  }
  // Those added since the last call; empty when none came within `timeout`.
  std::vector<size_t> take(std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex_);
    if (timeout.count() > 0) ready_.wait_for(lock, timeout, [&] { return !streams_.empty(); });
    return std::exchange(streams_, {});
  }

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  std::vector<size_t> streams_;
};

// The consumer's end of a running request: a queue of events with one producer (the scheduler) and one
// consumer.
class TokenStream {
 public:
  void push(TokenEvent event) {
    {
      std::lock_guard lock(mutex_);
      events_.push_back(std::move(event));
      if (events_.size() == 1 && ready_streams_ != nullptr) ready_streams_->add(number_);
    }
    ready_.notify_one();
  }

  // From now on `ready` is told, with `number`, whenever the stream is no longer empty; a consumer that was
  // told takes all events there are.
  void tell(std::shared_ptr<ReadyStreams> ready, size_t number) {
    std::lock_guard lock(mutex_);
    ready_streams_ = std::move(ready);
    number_ = number;
    if (!events_.empty()) ready_streams_->add(number_);
  }

  // The producer says when the request left the queue for the first time.
  void set_admitted(int64_t time_ns) { admitted_ns_.store(time_ns, std::memory_order_relaxed); }
  // That time, by the scheduler's clock; 0: it still waits.
  int64_t admitted_ns() const { return admitted_ns_.load(std::memory_order_relaxed); }

  bool empty() const {
    std::lock_guard lock(mutex_);
    return events_.empty();
  }

  // The next event, or nothing when none came within `timeout`. After an event with `finish` no more come.
  std::optional<TokenEvent> next(std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex_);
    // A poll must not cost a system call.
    if (timeout.count() > 0) ready_.wait_for(lock, timeout, [&] { return !events_.empty(); });
    if (events_.empty()) return std::nullopt;
    TokenEvent event = std::move(events_.front());
    events_.pop_front();
    return event;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<TokenEvent> events_;
  std::shared_ptr<ReadyStreams> ready_streams_;
  size_t number_ = 0;  // in them
  std::atomic<int64_t> admitted_ns_{0};
};

// A reading of the scheduler, for /server_info, /metrics and logs.
struct SchedulerStats {
  int64_t running_requests = 0;
  int64_t waiting_requests = 0;
  int64_t used_tokens = 0;    // token places in pages that live requests hold
  int64_t cached_tokens = 0;  // token places that only the prefix cache holds
  int64_t total_tokens = 0;   // token places in the pool
  int64_t steps = 0;
  // When a step last ended or, later, work came to a scheduler that had none; by the scheduler's clock.
  int64_t progress_ns = 0;
  int64_t finished_requests = 0;
  int64_t aborted_requests = 0;
  int64_t retractions = 0;
  int64_t prompt_tokens = 0;  // counted when computed or found in the cache
  int64_t prompt_cached_tokens = 0;
  MissCounters cache_misses;
  int64_t generated_tokens = 0;
  bool speculates = false;  // the executor guesses tokens; the sums over all requests:
  SpeculationCounts speculation;
  int64_t unguessed_steps = 0;     // steps of decode rows that guessed nothing, since it would not have paid
  int64_t evicted_tokens = 0;      // token places taken from the prefix cache for new tokens
  int64_t preempted_requests = 0;  // of the waiting ones, those that ran before
  // Pages that are neither free nor the prefix cache's nor a live request's: anything but 0 is a bug.
  int64_t leaked_pages = 0;
  double generation_rate = 0.0;  // tokens per second, over the last seconds
};

// Implemented by sched, called by api. Thread safe.
class RequestSink {
 public:
  virtual ~RequestSink() = default;

  // Takes the request, or says why not: kInvalidArgument (it can never fit), kUnavailable (full, draining).
  virtual Result<std::shared_ptr<TokenStream>> submit(GenerateRequest request) = 0;
  // The request ends with kAbort and its pages are free within a step; unknown ids are ignored.
  virtual void cancel(const std::string& id) = 0;
  // The same for a request whose text is complete (a stop string): it counts as finished, not as aborted.
  virtual void finish(const std::string& id) = 0;
  virtual void cancel_all() = 0;
  // Forgets every cached prefix; kUnavailable while requests run or wait.
  virtual Result<void> flush_cache() = 0;
  virtual SchedulerStats stats() const = 0;
  // Of each scheduler, where there are several.
  virtual std::vector<SchedulerStats> group_stats() const { return {stats()}; }
};

}  // namespace fathom

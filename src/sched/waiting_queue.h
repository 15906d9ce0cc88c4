// The requests that hold no pages, in order of arrival with preempted ones in front, and the order in which
// the policy would admit them. Not thread safe.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "kv/kv_cache.h"
#include "sched/scheduler_options.h"
#include "sched/sequence.h"

namespace fathom::sched {

class WaitingQueue {
 public:
  WaitingQueue(const SchedulerOptions& options, const kv::KvCache& cache);

  size_t size() const { return queue_.size(); }
  bool empty() const { return queue_.empty(); }
  void push_back(std::unique_ptr<Sequence> sequence);
  void push_front(std::unique_ptr<Sequence> sequence);  // preempted
  std::unique_ptr<Sequence> take(const Sequence* sequence);
  const std::deque<std::unique_ptr<Sequence>>& sequences() const { return queue_; }

  // The first candidates for admission, best first, at most kMaxCandidates. Valid until the queue changes.
  //
  // fcfs: as they came. lpm: preempted ones, then those that waited too long, then by the length of the
  // cached prefix; those whose prefix an earlier candidate is about to compute go last. With more than
  // kMaxMatched waiting, lpm orders as fcfs, as the reference does: matching them all costs too much.
  const std::vector<Sequence*>& candidates(uint64_t step);

  static constexpr size_t kMaxCandidates = 256;
  static constexpr size_t kMaxMatched = 128;

 private:
  void order_by_prefix(uint64_t step);

  const SchedulerOptions& options_;
  const kv::KvCache& cache_;
  std::deque<std::unique_ptr<Sequence>> queue_;
  std::vector<Sequence*> candidates_;
  bool changed_ = true;
  uint64_t ordered_version_ = 0;  // of the cache, when candidates_ was made
  uint64_t ordered_step_ = 0;
};

}  // namespace fathom::sched

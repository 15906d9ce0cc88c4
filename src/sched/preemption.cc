// SchedulerCore: taking pages back from running requests when the pool is full. Only while no step is out.
#include <algorithm>

#include "base/log.h"
#include "sched/draft.h"

namespace fathom::sched {

size_t SchedulerCore::num_active() const {
  return static_cast<size_t>(
      std::count_if(running_.begin(), running_.end(), [](const auto& sequence) { return !sequence->ended; }));
}

// The one with the fewest outputs, and the longest prompt among equals, as in the reference: the least work
// is lost. Unlike there, the request that came first is spared, so that it finishes whatever comes after it.
Sequence* SchedulerCore::choose_victim() const {
  const Sequence* first = nullptr;
  for (const auto& sequence : running_) {
    if (!sequence->ended && (first == nullptr || sequence->order < first->order)) first = sequence.get();
  }
  Sequence* victim = nullptr;
  for (const auto& sequence : running_) {
    if (sequence->ended || sequence.get() == first) continue;
    if (victim == nullptr || sequence->num_outputs() < victim->num_outputs() ||
        (sequence->num_outputs() == victim->num_outputs() && sequence->prompt_len >= victim->prompt_len)) {
      victim = sequence.get();
    }
  }
  FATHOM_CHECK(victim != nullptr, "no request can be preempted: {} run", num_active());
  return victim;
}

// Back to the front of the queue. Its computed pages stay in the cache until they are needed, so that it may
// find them again.
void SchedulerCore::preempt(Sequence* sequence) {
  FATHOM_CHECK(sequence->in_flight == 0 && !sequence->ended, "request {} cannot be preempted",
               sequence->request.id);
  LOG_INFO("the KV pool is full: request {} gives way after {} outputs", sequence->request.id,
           sequence->num_outputs());
  release(sequence);
  sequence->planned_len = 0;
  sequence->computed_len = 0;
  sequence->complete_len = 0;
  sequence->planned_outputs = sequence->num_outputs();
  sequence->opened = false;
  sequence->resumed = sequence->num_outputs() > 0;
  sequence->waiting_since = next_step_;
  sequence->compared_with = UINT64_MAX;
  ++sequence->retractions;
  ++counters_.retractions;
  auto it = std::find_if(running_.begin(), running_.end(),
                         [&](const auto& running) { return running.get() == sequence; });
  waiting_.push_front(std::move(*it));
  running_.erase(it);
}

void SchedulerCore::preempt_for_decoding() {
  int32_t steps = options_.retract_decode_steps;
  // Pages that let every decoding sequence go on for `ahead` more tokens, or to its end.
  auto pages_needed = [&](int32_t ahead) {
    int32_t pages = 0;
    for (const auto& sequence : running_) {
      if (!sequence->running() || !sequence->can_decode()) continue;
      int32_t more = std::min(ahead, sequence->max_outputs - sequence->planned_outputs);
      pages += cache_.pages_to_grow(sequence->table, sequence->planned_len + more);
    }
    return pages;
  };
  size_t active = num_active();
  while (active > 1 && pages_needed(std::max(1, steps)) > cache_.available_pages()) {
    preempt(choose_victim());
    --active;
  }
  FATHOM_CHECK(pages_needed(1) <= cache_.available_pages(), "a lone request has no room for its next token");

  int64_t outputs = 0;
  int64_t max_outputs = 0;
  for (const auto& sequence : running_) {
    if (!sequence->running()) continue;
    outputs += sequence->num_outputs();
    max_outputs += sequence->max_outputs;
  }
  ratio_.preempted(outputs, max_outputs, static_cast<int64_t>(active), steps);
}

}  // namespace fathom::sched

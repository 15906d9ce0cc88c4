#include "sched/waiting_queue.h"

#include <algorithm>
#include <unordered_set>

#include "base/random.h"

namespace fathom::sched {
namespace {

// An order by prefix goes stale when the cache changes, but is not made anew more often than this.
constexpr uint64_t kReorderSteps = 8;

uint64_t hash_prefix(const Sequence& sequence, int32_t tokens) {
  uint64_t hash = std::hash<std::string>()(sequence.request.cache_namespace);
  for (int32_t i = 0; i < tokens; ++i) {
    hash = mix64(hash + static_cast<uint32_t>(sequence.tokens[static_cast<size_t>(i)]) + 1);
  }
  return hash;
}

}  // namespace

WaitingQueue::WaitingQueue(const SchedulerOptions& options, const kv::KvCache& cache)
    : options_(options), cache_(cache) {}

void WaitingQueue::push_back(std::unique_ptr<Sequence> sequence) {
  queue_.push_back(std::move(sequence));
  changed_ = true;
}

void WaitingQueue::push_front(std::unique_ptr<Sequence> sequence) {
  queue_.push_front(std::move(sequence));
  changed_ = true;
}

std::unique_ptr<Sequence> WaitingQueue::take(const Sequence* sequence) {
  auto it = std::find_if(queue_.begin(), queue_.end(),
                         [&](const auto& waiting) { return waiting.get() == sequence; });
  FATHOM_CHECK(it != queue_.end(), "request {} does not wait", sequence->request.id);
  std::unique_ptr<Sequence> taken = std::move(*it);
  queue_.erase(it);
  changed_ = true;
  return taken;
}

const std::vector<Sequence*>& WaitingQueue::candidates(uint64_t step) {
  bool by_prefix = options_.schedule_policy == SchedulePolicy::kLpm && cache_.radix_cache() &&
                   queue_.size() <= kMaxMatched;
  bool stale = by_prefix && cache_.version() != ordered_version_ && step >= ordered_step_ + kReorderSteps;
  if (!changed_ && !stale) return candidates_;
  changed_ = false;

  candidates_.clear();
  size_t count =
      options_.enable_priority_scheduling ? queue_.size() : std::min(queue_.size(), kMaxCandidates);
  for (size_t i = 0; i < count; ++i) candidates_.push_back(queue_[i].get());
  if (by_prefix) order_by_prefix(step);
  if (options_.enable_priority_scheduling) {
    std::stable_sort(candidates_.begin(), candidates_.end(), [](const Sequence* a, const Sequence* b) {
      return a->request.priority > b->request.priority;
    });
    candidates_.resize(std::min(candidates_.size(), kMaxCandidates));
  }
  return candidates_;
}

void WaitingQueue::order_by_prefix(uint64_t step) {
  ordered_version_ = cache_.version();
  ordered_step_ = step;
  struct Entry {
    Sequence* sequence;
    int32_t group;  // lower first
    int32_t cached;
  };
  std::vector<Entry> entries;
  std::unordered_set<uint64_t> prefixes;
  for (Sequence* sequence : candidates_) {
    auto limit = static_cast<size_t>(std::max(0, sequence->match_limit()));
    Entry entry{sequence, 2, 0};
    entry.cached = cache_.cached_tokens(sequence->request.cache_namespace,
                                        std::span<const int32_t>(sequence->tokens).first(limit));
    if (sequence->retractions > 0) {
      entry.group = 0;
    } else if (step >= sequence->waiting_since + static_cast<uint64_t>(options_.lpm_patience_steps)) {
      entry.group = 1;
    } else if (entry.cached <= options_.in_batch_prefix_tokens &&
               sequence->prompt_len >= options_.in_batch_prefix_tokens &&
               !prefixes.insert(hash_prefix(*sequence, options_.in_batch_prefix_tokens)).second) {
      entry.group = 3;
    }
    if (entry.group < 2) entry.cached = 0;  // these keep their order
    entries.push_back(entry);
  }
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return a.group != b.group ? a.group < b.group : a.cached > b.cached;
  });
  for (size_t i = 0; i < entries.size(); ++i) candidates_[i] = entries[i].sequence;
}

}  // namespace fathom::sched

// SchedulerCore: which waiting request may start.
#include <algorithm>
#include <cmath>

#include "base/math.h"
#include "sched/draft.h"

namespace fathom::sched {

// Moves the best candidate that may start now to the running ones, with its cached prefix pinned.
Sequence* SchedulerCore::admit_next(Draft* draft) {
  if (free_slots_.empty() || waiting_.empty()) return nullptr;
  for (Sequence* candidate : waiting_.candidates(next_step_)) {
    if (waits_for_prefix(candidate, *draft)) continue;
    auto limit = static_cast<size_t>(std::max(0, candidate->match_limit()));
    kv::BlockTable table = cache_.open(candidate->request.cache_namespace,
                                       std::span<const int32_t>(candidate->tokens).first(limit));
    // Alone it fits, whatever the guess says.
    if (num_active() > 0 && !fits(*candidate, table)) {
      cache_.close(std::move(table), {});
      return nullptr;  // the ones behind it must not overtake it
    }
    running_.push_back(waiting_.take(candidate));
    candidate->slot = free_slots_.back();
    free_slots_.pop_back();
    candidate->opened = false;
    candidate->table = std::move(table);
    candidate->planned_len = candidate->table.committed * limits_.page_size;
    candidate->computed_len = candidate->planned_len;
    candidate->complete_len = candidate->planned_len;
    candidate->planned_outputs = candidate->num_outputs();
    if (!candidate->admitted_before) {
      candidate->admitted_before = true;
      candidate->stream->set_admitted(clock_.now_ns());
      candidate->cached_tokens = candidate->planned_len;
      candidate->counted_prompt = candidate->planned_len;
      counters_.prompt_tokens += candidate->planned_len;
      counters_.prompt_cached_tokens += candidate->planned_len;
      explain_miss(candidate, limit);
    }
    if (candidate->in_prompt() && cache_.commits(candidate->table)) draft->computing.push_back(candidate);
    return candidate;
  }
  return nullptr;
}

// Counts why the prompt was not found whole, and keeps it for a client who wants to know. `limit`: the tokens
// that were looked up.
void SchedulerCore::explain_miss(Sequence* sequence, size_t limit) {
  const ExplainMiss wanted = sequence->request.explain_miss;
  CacheMiss miss = cache_.explain(sequence->table, std::span<const int32_t>(sequence->tokens).first(limit),
                                  wanted == ExplainMiss::kAllNamespaces);
  const bool whole = miss.reason == MissReason::kPageTail;
  if (whole && static_cast<int32_t>(limit) + 1 < sequence->prompt_len) miss.reason = MissReason::kLogprobs;
  const auto reason = static_cast<size_t>(miss.reason);
  ++counters_.cache_misses.requests[reason];
  counters_.cache_misses.tokens[reason] += sequence->prompt_len - sequence->cached_tokens;
  if (wanted != ExplainMiss::kNo) sequence->cache_miss = std::move(miss);
}

// Does a running sequence compute a prefix of this prompt right now that is not in the cache yet?
bool SchedulerCore::waits_for_prefix(Sequence* candidate, const Draft& draft) const {
  int32_t page_size = limits_.page_size;
  int32_t worthwhile = std::max(1, options_.in_batch_prefix_tokens);
  for (const Sequence* running : draft.computing) {
    if (running->request.cache_namespace != candidate->request.cache_namespace) continue;
    // Many samples of a long prompt wait for the first one; they are compared with it once.
    if (candidate->compared_with != running->order) {
      int32_t limit = std::max(0, std::min(candidate->match_limit(), running->prompt_len));
      auto begin = candidate->tokens.begin();
      auto differ = std::mismatch(begin, begin + limit, running->tokens.begin()).first;
      candidate->compared_with = running->order;
      candidate->compared_common = static_cast<int32_t>(differ - begin) / page_size * page_size;
    }
    // Nearly always the cache has just what the running one has committed; if it has more, the wait is short.
    int32_t cached = running->table.committed * page_size;
    if (candidate->compared_common - cached >= worthwhile) return true;
  }
  return false;
}

// Are there pages for all of the candidate, with as much output as it may have, beside what the running ones
// are expected to need?
bool SchedulerCore::fits(const Sequence& candidate, const kv::BlockTable& table) const {
  int32_t more =
      std::min(candidate.max_outputs - candidate.num_outputs(), options_.clip_max_new_tokens_estimation);
  auto known = static_cast<int32_t>(candidate.tokens.size());
  int32_t last = more > 0 ? known + more - 1 : known;
  return cache_.pages_to_grow(table, last) <= cache_.available_pages() - pages_expected_by_running();
}

int32_t SchedulerCore::pages_expected_by_running() const {
  int32_t pages = 0;
  for (const auto& sequence : running_) {
    if (!sequence->running()) continue;
    int32_t more =
        std::min(sequence->max_outputs - sequence->planned_outputs, options_.clip_max_new_tokens_estimation);
    int32_t expected = sequence->prompt_len + sequence->planned_outputs +
                       static_cast<int32_t>(std::ceil(ratio_.value() * more));
    pages += cache_.pages_to_grow(sequence->table, expected);
  }
  return pages;
}

}  // namespace fathom::sched

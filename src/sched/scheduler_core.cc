#include "sched/scheduler_core.h"

#include <algorithm>

#include "base/log.h"
#include "base/math.h"

namespace fathom::sched {
namespace {

int32_t usable_pages(const SchedulerOptions& options, const ExecutorLimits& limits) {
  if (options.max_total_tokens < 0) return limits.num_pages;
  return std::clamp(options.max_total_tokens / limits.page_size, 1, limits.num_pages);
}

}  // namespace

SchedulerCore::SchedulerCore(const SchedulerOptions& options, const ExecutorLimits& limits,
                             const Clock& clock)
    : options_(options),
      limits_(limits),
      clock_(clock),
      // A step must have room for a token of every running sequence.
      max_running_(std::min(limits.max_slots, limits.max_step_tokens)),
      cache_({.num_pages = usable_pages(options, limits),
              .page_size = limits.page_size,
              .radix_cache = !options.disable_radix_cache}),
      ratio_(options),
      prompt_budget_(options.prefill_step_ratio, limits.prompt_pairs),
      waiting_(options_, cache_) {
  FATHOM_CHECK(max_running_ > 0, "max_slots={} max_step_tokens={}", limits.max_slots, limits.max_step_tokens);
  if (options.max_running_requests > 0) max_running_ = std::min(max_running_, options.max_running_requests);
  for (int32_t slot = max_running_ - 1; slot >= 0; --slot) free_slots_.push_back(slot);
}

int32_t SchedulerCore::max_request_tokens() const {
  return std::min(limits_.max_context, cache_.num_pages() * limits_.page_size);
}

Result<void> SchedulerCore::admissible(const GenerateRequest& request) const {
  auto prompt_len = static_cast<int64_t>(request.prompt.size());
  if (prompt_len == 0)
    return error(ErrorCode::kInvalidArgument, "the prompt is empty: give at least one token");
  for (int32_t token : request.prompt) {
    if (token < 0 || token >= limits_.vocab_size) {
      return error(ErrorCode::kInvalidArgument, "prompt token {} is not in the vocabulary: expected 0 to {}",
                   token, limits_.vocab_size - 1);
    }
  }
  if (request.sampling.max_new_tokens < 0) {
    return error(ErrorCode::kInvalidArgument, "max_new_tokens is {}: expected 0 or more",
                 request.sampling.max_new_tokens);
  }
  int64_t needed = prompt_len + (request.sampling.max_new_tokens > 0 ? 1 : 0);
  if (needed > limits_.max_context) {
    return error(ErrorCode::kInvalidArgument,
                 "The input ({} tokens) is longer than the model's context length ({} tokens): shorten the "
                 "prompt to at most {} tokens.",
                 prompt_len, limits_.max_context, limits_.max_context - 1);
  }
  int64_t capacity = int64_t{cache_.num_pages()} * limits_.page_size;
  if (prompt_len > capacity) {
    return error(
        ErrorCode::kInvalidArgument,
        "The input ({} tokens) does not fit the KV pool ({} tokens): shorten the prompt, or start the "
        "server with a larger --max-total-tokens or --mem-fraction-static.",
        prompt_len, capacity);
  }
  return {};
}

void SchedulerCore::add(GenerateRequest request, std::shared_ptr<TokenStream> stream) {
  if (by_id_.contains(request.id)) {
    TokenEvent event;
    event.finish = FinishReason{
        FinishReason::Kind::kAbort, std::nullopt,
        error(ErrorCode::kInvalidArgument, "a request '{}' is running: choose another id", request.id)};
    ++counters_.aborted_requests;
    push(stream, std::move(event));
    return;
  }
  if (waiting_.empty() && num_active() == 0) counters_.progress_ns = clock_.now_ns();
  auto sequence = std::make_unique<Sequence>();
  sequence->prompt_len = static_cast<int32_t>(request.prompt.size());
  int64_t capacity = int64_t{cache_.num_pages()} * limits_.page_size;
  // The last output's own KV is never needed, so the pool may be smaller by one.
  sequence->max_outputs = static_cast<int32_t>(
      std::min<int64_t>({request.sampling.max_new_tokens, limits_.max_context - sequence->prompt_len,
                         capacity - sequence->prompt_len + 1}));
  sequence->tokens = request.prompt;
  sequence->request = std::move(request);
  sequence->stream = std::move(stream);
  sequence->order = next_order_++;
  sequence->waiting_since = next_step_;
  by_id_.emplace(sequence->request.id, sequence.get());
  Sequence* added = sequence.get();
  waiting_.push_back(std::move(sequence));
  if (fault_) {
    end(added, {FinishReason::Kind::kAbort, std::nullopt, fault_});
    waiting_.take(added);
  }
}

void SchedulerCore::cancel(const std::string& id) {
  end(id, FinishReason::Kind::kAbort);
}

void SchedulerCore::finish(const std::string& id) {
  end(id, FinishReason::Kind::kStop);
}

void SchedulerCore::end(const std::string& id, FinishReason::Kind kind) {
  auto it = by_id_.find(id);
  if (it == by_id_.end()) return;
  Sequence* sequence = it->second;
  end(sequence, {kind, std::nullopt, std::nullopt});
  if (sequence->slot < 0) waiting_.take(sequence);
  sweep();
}

void SchedulerCore::cancel_all() {
  while (!by_id_.empty()) cancel(std::string(by_id_.begin()->first));
}

Result<void> SchedulerCore::flush_cache() {
  if (!idle()) {
    return error(ErrorCode::kUnavailable, "{} requests run and {} wait: the cache is flushed only when idle",
                 running_.size(), waiting_.size());
  }
  cache_.flush();
  return {};
}

// The last event of a request goes out. A waiting one is then taken from the queue by the caller; a running
// one is released by sweep() once no step touches it. Its whole pages are the cache's already, for the
// request that goes on from the answer may come before that: what is still out writes behind them.
void SchedulerCore::end(Sequence* sequence, FinishReason reason, TokenEvent event) {
  FATHOM_CHECK(!sequence->ended, "request {} ends twice", sequence->request.id);
  if (reason.kind == FinishReason::Kind::kAbort) {
    ++counters_.aborted_requests;
  } else {
    ++counters_.finished_requests;
  }
  event.finish = std::move(reason);
  event.cached_tokens = sequence->cached_tokens;
  event.retractions = sequence->retractions;
  if (speculates()) event.speculation = sequence->speculation;
  event.time_ns = clock_.now_ns();
  sequence->ended = true;
  sweep_needed_ = true;
  if (sequence->slot >= 0) cache_.commit(&sequence->table, computed_tokens(*sequence));
  by_id_.erase(sequence->request.id);
  push(sequence->stream, std::move(event));
}

// Those whose pages hold all that others could want of them.
std::span<const int32_t> SchedulerCore::computed_tokens(const Sequence& sequence) {
  const auto tokens = static_cast<int32_t>(sequence.tokens.size());
  return std::span(sequence.tokens).first(static_cast<size_t>(std::min(sequence.complete_len, tokens)));
}

// Gives the slot and the pages back; the computed whole pages stay in the prefix cache.
void SchedulerCore::release(Sequence* sequence) {
  const auto computed = computed_tokens(*sequence);
  cache_.close(std::move(sequence->table), computed);
  sequence->table = {};
  free_slots_.push_back(sequence->slot);
  sequence->slot = -1;
}

void SchedulerCore::sweep() {
  if (!sweep_needed_) return;
  sweep_needed_ = false;
  std::erase_if(running_, [&](const std::unique_ptr<Sequence>& sequence) {
    if (!sequence->ended) return false;
    if (sequence->in_flight > 0) {
      sweep_needed_ = true;
      return false;
    }
    release(sequence.get());
    return true;
  });
  if (running_.empty()) ratio_.idle();
}

void SchedulerCore::fail(Error error) {
  LOG_ERROR("the executor failed; every request ends: {}", error.message);
  fault_ = std::move(error);
  in_flight_.clear();
  std::vector<Sequence*> all;
  for (const auto& sequence : running_) {
    sequence->in_flight = 0;
    sequence->computed_len = 0;  // what the pages hold is unknown
    sequence->complete_len = 0;
    if (!sequence->ended) all.push_back(sequence.get());
  }
  for (const auto& sequence : waiting_.sequences()) all.push_back(sequence.get());
  for (Sequence* sequence : all) {
    end(sequence, {FinishReason::Kind::kAbort, std::nullopt, fault_});
    if (sequence->slot < 0) waiting_.take(sequence);
  }
  sweep();
  cache_.flush();
}

SchedulerStats SchedulerCore::stats() const {
  SchedulerStats stats = counters_;
  stats.speculates = speculates();
  stats.running_requests = static_cast<int64_t>(num_active());
  stats.waiting_requests = static_cast<int64_t>(waiting_.size());
  stats.used_tokens = int64_t{cache_.used_pages()} * limits_.page_size;
  stats.cached_tokens = int64_t{cache_.evictable_pages()} * limits_.page_size;
  stats.total_tokens = int64_t{cache_.num_pages()} * limits_.page_size;
  stats.evicted_tokens = cache_.evicted_pages() * limits_.page_size;
  for (const auto& sequence : waiting_.sequences()) {
    if (sequence->retractions == 0) break;  // preempted ones stand at the front
    ++stats.preempted_requests;
  }
  stats.leaked_pages = cache_.private_pages();
  for (const auto& sequence : running_) {
    stats.leaked_pages -=
        static_cast<int64_t>(sequence->table.pages.size()) - int64_t{sequence->table.committed};
  }
  stats.generation_rate = rate_.per_second(clock_.now_ns());
  return stats;
}

Result<void> SchedulerCore::check_integrity() const {
  std::vector<const kv::BlockTable*> tables;
  std::vector<uint8_t> slots(static_cast<size_t>(max_running_), 0);
  for (int32_t slot : free_slots_) ++slots[static_cast<size_t>(slot)];
  size_t live = waiting_.size();
  for (const auto& sequence : running_) {
    const Sequence& s = *sequence;
    auto wrong = [&](const char* what) {
      return error(ErrorCode::kInternal,
                   "running request {}: {} (prompt {}, tokens {}, computed {}, planned {})", s.request.id,
                   what, s.prompt_len, s.tokens.size(), s.computed_len, s.planned_len);
    };
    tables.push_back(&s.table);
    if (s.slot < 0 || s.slot >= max_running_) return wrong("no slot");
    ++slots[static_cast<size_t>(s.slot)];
    live += s.ended ? 0 : 1;
    if (s.computed_len > s.planned_len) return wrong("computed more than planned");
    if (s.complete_len > s.computed_len) return wrong("complete beyond what is computed");
    if (s.in_flight == 0 && s.computed_len != s.planned_len) return wrong("planned rows are lost");
    if (s.in_flight == 0 && s.ended) return wrong("ended but not released");
    if (!s.ended && s.planned_outputs < s.num_outputs()) return wrong("more outputs than planned");
    if (s.num_outputs() > s.max_outputs) return wrong("too many outputs");
    if (cache_.pages_to_grow(s.table, s.planned_len) != 0) return wrong("planned beyond its pages");
    auto by_id = by_id_.find(s.request.id);
    if (!s.ended && (by_id == by_id_.end() || by_id->second != &s)) return wrong("not found by its id");
  }
  for (const auto& sequence : waiting_.sequences()) {
    if (sequence->slot >= 0 || !sequence->table.pages.empty() || sequence->in_flight > 0 || sequence->ended) {
      return error(ErrorCode::kInternal, "waiting request {} holds something", sequence->request.id);
    }
  }
  if (live != by_id_.size()) {
    return error(ErrorCode::kInternal, "{} live requests, {} known by id", live, by_id_.size());
  }
  for (size_t slot = 0; slot < slots.size(); ++slot) {
    if (slots[slot] != 1) return error(ErrorCode::kInternal, "slot {} has {} owners", slot, slots[slot]);
  }
  return cache_.check_integrity(tables);
}

}  // namespace fathom::sched

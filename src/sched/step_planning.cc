// SchedulerCore: what the next step computes. Decode rows go first and always; prompt rows share what is left
// of the token budget.
#include <algorithm>

#include "base/math.h"
#include "sched/draft.h"

namespace fathom::sched {

std::optional<BatchPlan> SchedulerCore::plan() {
  if (fault_ || !can_plan_ahead()) return std::nullopt;
  bool may_admit = true;
  for (;;) {
    Draft draft;
    draft.may_admit = may_admit;
    draft.tokens_left = limits_.max_step_tokens;
    draft_rows(&draft);
    if (!draft.plan.rows.empty()) {
      draft.plan.step = next_step_;
      draft.step.step = next_step_;
      draft.step.planned_ns = clock_.now_ns();
      ++next_step_;
      ++counters_.steps;
      last_step_extended_ = draft.extended;
      in_flight_.push_back(std::move(draft.step));
      return std::move(draft.plan);
    }
    // Nothing to compute, or results out will tell more. Otherwise the running sequences have taken all
    // pages with unfinished prompts: one has to give way.
    size_t active = num_active();
    if (!in_flight_.empty() || active == 0) return std::nullopt;
    FATHOM_CHECK(active > 1, "a lone request cannot go on");
    preempt(choose_victim());
    may_admit = false;  // or the victim would take the pages again
  }
}

void SchedulerCore::draft_rows(Draft* draft) {
  if (!secure_decode_memory(draft)) return;
  if (options_.enable_mixed_chunk) {
    draft_decode_rows(draft);
    if (!draft->waits) draft_prompt_rows(draft);
    return;
  }
  // The two kinds of steps take turns, where both have work. The third try is for a resumed request that was
  // admitted in the second one and has only output tokens to compute.
  for (bool extend : {!last_step_extended_, last_step_extended_, !last_step_extended_}) {
    draft->extend_turn = extend;
    draft->decode_turn = !extend;
    // Again: what was admitted meanwhile may have to decode, with pages of ended requests still held.
    if (draft->decode_turn && !secure_decode_memory(draft)) return;
    if (draft->decode_turn) draft_decode_rows(draft);
    if (draft->waits) return;
    draft_prompt_rows(draft);
    if (!draft->plan.rows.empty()) return;
  }
}

// Makes sure that every decode row of this step gets its page, by preemption if need be. False: that has to
// wait until no step is out, since only then all outputs are known.
bool SchedulerCore::secure_decode_memory(Draft* draft) {
  int32_t pages = 0;
  int32_t pages_with_drafts = 0;
  for (const auto& sequence : running_) {
    if (sequence->running() && sequence->can_decode()) {
      const int32_t next = sequence->planned_len + 1;
      pages += cache_.pages_to_grow(sequence->table, next);
      pages_with_drafts += cache_.pages_to_grow(sequence->table, next + drafts_for(*sequence));
    }
  }
  // Guesses are not worth a preemption.
  draft->speculates = pages_with_drafts <= cache_.available_pages();
  if (pages <= cache_.available_pages()) return true;
  if (!in_flight_.empty()) return false;
  preempt_for_decoding();
  draft->may_admit = false;
  return true;
}

// Tokens to guess in the sequence's next row: no more than it may put out beside the one that is sure. What a
// resumed one needs for guesses is not there yet.
int32_t SchedulerCore::drafts_for(const Sequence& sequence) const {
  if (sequence.resumed) return 0;
  return std::clamp(sequence.max_outputs - sequence.planned_outputs - 1, 0, limits_.max_drafts);
}

void SchedulerCore::add_row(Sequence* sequence, BatchRow row, Draft* draft) {
  int32_t count = row.num_tokens();
  if (!sequence->opened) {
    BatchPlan::Open open;
    open.slot = sequence->slot;
    open.init.sampling = sequence->request.sampling;
    open.init.logprobs = sequence->request.logprobs;
    open.init.mask = sequence->request.mask;
    open.init.prompt = sequence->request.prompt;
    open.init.output.assign(sequence->tokens.begin() + sequence->prompt_len, sequence->tokens.end());
    open.pages.assign(sequence->table.pages.begin(), sequence->table.pages.end());
    draft->plan.open.push_back(std::move(open));
    sequence->opened = true;
  }
  row.slot = sequence->slot;
  row.start = sequence->planned_len;
  bool grown = cache_.grow(&sequence->table, sequence->planned_len + count, &row.new_pages);
  FATHOM_CHECK(grown, "no pages for a planned row of request {}", sequence->request.id);
  sequence->planned_len += count;
  if (row.sample) {
    ++sequence->planned_outputs;
    sequence->resumed = false;
  }
  ++sequence->in_flight;
  sequence->last_step = next_step_;
  draft->tokens_left -= count;
  draft->step.rows.push_back({sequence, count, sequence->planned_len <= sequence->prompt_len,
                              row.mode == RowMode::kExtend, row.sample, !row.tokens.empty()});
  draft->plan.rows.push_back(std::move(row));
}

bool SchedulerCore::has_turn(const Sequence& sequence, int32_t count) const {
  // Too few to keep all stages busy go on as soon as they can.
  if (options_.stages == 1 || count < options_.stages) return true;
  return sequence.in_flight == 0 || sequence.last_step + static_cast<uint64_t>(options_.stages) <= next_step_;
}

void SchedulerCore::draft_decode_rows(Draft* draft) {
  const auto can_decode = [](const auto& sequence) { return sequence->running() && sequence->can_decode(); };
  const auto all = static_cast<int32_t>(std::ranges::count_if(running_, can_decode));
  if (all == 0) return;
  // As many for each stage; those whose turn it is.
  int32_t most = options_.stages == 1 || all < options_.stages ? all : ceil_div(all, options_.stages);
  const auto decodes = [&](const auto& sequence) { return can_decode(sequence) && has_turn(*sequence, all); };
  const auto count = std::min(most, static_cast<int32_t>(std::ranges::count_if(running_, decodes)));
  bool guesses = draft->speculates && speculates();
  if (guesses && options_.speculative_adaptive) {
    if (!guess_next_) guess_next_ = gain_.pays(count, !last_step_extended_);
    guesses = *guess_next_;
    if (!guesses) ++counters_.unguessed_steps;
  }
  draft->waits = guesses && !in_flight_.empty();
  if (draft->waits) return;
  guess_next_.reset();
  int32_t spare = draft->tokens_left - count;
  draft->plan.rows.reserve(running_.size());
  draft->step.rows.reserve(running_.size());
  for (const auto& sequence : running_) {
    if (most == 0) break;
    if (!decodes(sequence)) continue;
    --most;
    BatchRow row;
    row.sample = true;
    if (sequence->resumed) row.tokens.push_back(sequence->tokens.back());
    if (guesses) row.drafts = std::min(drafts_for(*sequence), std::max(spare, 0));
    spare -= row.drafts;
    draft->step.guesses = draft->step.guesses || row.drafts > 0;
    add_row(sequence.get(), std::move(row), draft);
  }
  ratio_.decode_step();
}

// Adds a row with at most `max_tokens` of what the sequence has to recompute or compute of its known tokens.
// Returns its length: 0 when no pages are left, or when its kind has no turn.
int32_t SchedulerCore::draft_prompt_row(Sequence* sequence, int32_t max_tokens, Draft* draft) {
  const bool prompt = sequence->in_prompt();
  const int32_t extend_end = limits_.extend_end(sequence->prompt_len);
  const bool extend = sequence->planned_len < extend_end;
  if (extend ? !draft->extend_turn : !draft->decode_turn) return 0;
  const int32_t known = prompt ? sequence->prompt_len : static_cast<int32_t>(sequence->tokens.size());
  const int32_t end = extend ? extend_end : known;
  int32_t room =
      (static_cast<int32_t>(sequence->table.pages.size()) + cache_.available_pages()) * limits_.page_size -
      sequence->planned_len;
  int32_t count = std::min({end - sequence->planned_len, max_tokens, room});
  if (count <= 0) return 0;
  const bool last = sequence->planned_len + count == known;
  if (sequence->planned_len + count < end) {
    // Whole pages, so that the chunk can be shared as soon as it is computed.
    int32_t aligned = (sequence->planned_len + count) / limits_.page_size * limits_.page_size;
    if (aligned > sequence->planned_len) count = aligned - sequence->planned_len;
  }

  BatchRow row;
  row.mode = extend ? RowMode::kExtend : RowMode::kDecode;
  auto first = sequence->tokens.begin() + sequence->planned_len;
  row.tokens.assign(first, first + count);
  // A prompt with known outputs goes on with these.
  row.sample = last && sequence->max_outputs > 0 && (!prompt || sequence->num_outputs() == 0);
  if (prompt) {
    int32_t next_logprob = sequence->next_prompt_logprob();
    if (next_logprob >= 0 && next_logprob < sequence->prompt_len) {
      row.prompt_logprob_start = next_logprob;  // rows in flight report what lies before this row's start
      if (!last) row.next_prompt_token = first[count];
    }
  }
  if (extend) {
    draft->extended = true;
    draft->step.looks += prompt_budget_.looks(sequence->planned_len, count);
  }
  add_row(sequence, std::move(row), draft);
  return count;
}

void SchedulerCore::draft_prompt_rows(Draft* draft) {
  std::vector<Sequence*> pending;
  draft->computing.clear();
  for (const auto& sequence : running_) {
    if (!sequence->running()) continue;
    if (sequence->in_prompt() || sequence->in_replay()) pending.push_back(sequence.get());
    if (sequence->computed_len < sequence->prompt_len && cache_.commits(sequence->table)) {
      draft->computing.push_back(sequence.get());
    }
  }
  bool may_admit = draft->may_admit && draft->extend_turn && !free_slots_.empty() && !waiting_.empty();
  if (pending.empty() && !may_admit) return;

  auto remaining = [](const Sequence* s) {
    return (s->in_prompt() ? s->prompt_len : static_cast<int32_t>(s->tokens.size())) - s->planned_len;
  };
  bool chunked = options_.chunked_prefill_size > 0;
  int32_t budget =
      std::min(draft->tokens_left, chunked ? options_.chunked_prefill_size : options_.max_prefill_tokens);
  bool limited = false;  // by those that decode
  if (options_.enable_mixed_chunk && chunked) {
    const int32_t beside = prompt_budget_.tokens(draft->step.tokens(false), options_.chunked_prefill_size);
    limited = beside < budget;
    budget = std::min(budget, beside);
  }

  if (!chunked) {
    // Whole prompts in order of arrival; only the first of a step may exceed the budget, or be cut.
    std::sort(pending.begin(), pending.end(), [](auto* a, auto* b) { return a->order < b->order; });
    size_t next = 0;
    bool first = true;
    for (;;) {
      Sequence* sequence = next < pending.size() ? pending[next++] : nullptr;
      if (sequence == nullptr && may_admit && budget > 0) sequence = admit_next(draft);
      if (sequence == nullptr) return;
      if (!first && remaining(sequence) > budget) continue;
      int32_t count = draft_prompt_row(sequence, first ? draft->tokens_left : budget, draft);
      budget -= count;
      if (count > 0) first = false;
    }
  }

  // A row costs more the longer its prompt before it is.
  const auto priced = [&](const Sequence* s) {
    return limited && s->planned_len < limits_.extend_end(s->prompt_len);
  };
  const auto cost_of = [&](const Sequence* s, int32_t count) {
    return priced(s) ? prompt_budget_.cost_of(s->planned_len, count) : count;
  };
  const auto fitting = [&](const Sequence* s, int32_t most) {
    return priced(s) ? prompt_budget_.fitting(s->planned_len, most) : most;
  };
  // The oldest prompt is sure of half the budget, and of all that the others leave; the others share the
  // rest, the shortest first. So neither does a long prompt hold up the short ones, nor the reverse.
  auto oldest =
      std::min_element(pending.begin(), pending.end(), [](auto* a, auto* b) { return a->order < b->order; });
  Sequence* reserved = nullptr;
  int32_t left = budget;
  if (oldest != pending.end()) {
    reserved = *oldest;
    pending.erase(oldest);
    left -= std::min(cost_of(reserved, remaining(reserved)), budget - budget / 2);
  }
  std::stable_sort(pending.begin(), pending.end(),
                   [&](auto* a, auto* b) { return remaining(a) < remaining(b); });
  int32_t reserve = budget - left;
  // Whether there was room for a row of the sequence.
  const auto compute = [&](Sequence* sequence) {
    const bool by_price = priced(sequence);
    const int32_t before = sequence->planned_len;
    const int32_t most = fitting(sequence, left);
    const int32_t count = most > 0 ? draft_prompt_row(sequence, most, draft) : 0;
    if (count > 0) left -= by_price ? prompt_budget_.cost_of(before, count) : count;
    return most > 0;
  };
  for (Sequence* sequence : pending) {
    if (left <= 0) break;
    compute(sequence);
  }
  while (may_admit && left > 0) {
    Sequence* sequence = admit_next(draft);
    if (sequence == nullptr) break;
    if (compute(sequence)) continue;
    if (reserved == nullptr && !draft->extended) reserved = sequence;
    break;
  }
  if (reserved != nullptr && reserve + left > 0) {
    // A page at least, and tokens for what the row costs without any.
    const int32_t fixed = cost_of(reserved, 1) - 1;
    const int32_t wanted = std::max({fitting(reserved, reserve + left), fixed, limits_.page_size});
    const int32_t room =
        std::min(draft->tokens_left, options_.chunked_prefill_size - draft->step.tokens(true));
    draft_prompt_row(reserved, std::min(wanted, room), draft);
  }
  auto behind = std::ranges::count_if(running_, [](const auto& s) { return s->running() && s->in_prompt(); });
  if (left <= 0 && may_admit) behind += static_cast<int64_t>(std::min(free_slots_.size(), waiting_.size()));
  draft->step.behind = behind * PromptBudget::kBehind > static_cast<int64_t>(running_.size());
}

}  // namespace fathom::sched

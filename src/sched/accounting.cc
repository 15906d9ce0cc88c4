// SchedulerCore: what a finished step means for its sequences.
#include <algorithm>
#include <iterator>
#include <utility>

#include "sched/draft.h"

namespace fathom::sched {

namespace {

void count_guesses(const RowResult& result, int32_t most, SpeculationCounts* counts) {
  const size_t right = result.outputs.size() - 1;
  ++counts->verify_steps;
  counts->draft_tokens += result.drafted;
  counts->accepted_tokens += static_cast<int64_t>(right);
  counts->histogram.resize(static_cast<size_t>(most) + 1);
  ++counts->histogram[right];
}

}  // namespace

void SchedulerCore::account(Result<StepResult> result) {
  if (fault_) return;  // results of steps that were out when the executor failed
  FATHOM_CHECK(!in_flight_.empty(), "a result without a step");
  if (!result.ok()) return fail(result.error());
  PlannedStep step = std::move(in_flight_.front());
  in_flight_.pop_front();
  FATHOM_CHECK_EQ(result->step, step.step);
  FATHOM_CHECK_EQ(result->rows.size(), step.rows.size());
  int64_t outputs_before = counters_.generated_tokens;
  now_ns_ = clock_.now_ns();
  // A step that was planned early begins when the one before it ends.
  const int64_t step_ns = now_ns_ - std::max(step.planned_ns, last_result_ns_);
  prompt_budget_.note({step.tokens(false), step.tokens(true), step.looks}, step_ns, step.behind);
  last_result_ns_ = now_ns_;
  counters_.progress_ns = now_ns_;
  for (size_t i = 0; i < step.rows.size(); ++i) account_row(step.rows[i], std::move(result->rows[i]));
  rate_.add(now_ns_, counters_.generated_tokens - outputs_before);
  if (speculates()) note_gain(step, step_ns, counters_.generated_tokens - outputs_before);
  sweep();
}

int32_t SchedulerCore::PlannedStep::tokens(bool extend) const {
  int32_t sum = 0;
  for (const PlannedRow& row : rows) sum += row.extend == extend ? row.tokens : 0;
  return sum;
}

// What a step of nothing but decode rows cost.
void SchedulerCore::note_gain(const PlannedStep& step, int64_t ns, int64_t outputs) {
  const bool decodes = std::ranges::all_of(step.rows, [](const PlannedRow& row) { return !row.named; });
  if (!decodes) return;
  gain_.note(static_cast<int32_t>(step.rows.size()), step.guesses, ns, outputs);
}

void SchedulerCore::account_row(const PlannedRow& row, RowResult result) {
  Sequence* sequence = row.sequence;
  FATHOM_CHECK_EQ(result.slot, sequence->slot);
  --sequence->in_flight;
  const int32_t start = sequence->computed_len;
  if (row.tokens > 1 && !row.named) {
    // Of the guessed tokens, the right ones' positions count.
    FATHOM_CHECK(!result.outputs.empty() && static_cast<int32_t>(result.outputs.size()) <= row.tokens,
                 "{} outputs of a row of {} tokens", result.outputs.size(), row.tokens);
    sequence->computed_len += static_cast<int32_t>(result.outputs.size());
    sequence->planned_len = sequence->computed_len;
    sequence->planned_outputs += static_cast<int32_t>(result.outputs.size()) - 1;
  } else {
    sequence->computed_len += row.tokens;
  }
  sequence->complete_len = !limits_.draft_layer ? sequence->computed_len
                           : row.named          ? sequence->computed_len - 1
                                                : start;
  if (sequence->ended) return;  // cancelled, or a stop was found after this step was planned

  if (row.prompt) {
    int32_t new_prompt = std::max(0, sequence->computed_len - sequence->counted_prompt);
    sequence->counted_prompt += new_prompt;
    counters_.prompt_tokens += new_prompt;
    sequence->num_prompt_logprobs += static_cast<int32_t>(result.prompt_logprobs.size());
    std::move(result.prompt_logprobs.begin(), result.prompt_logprobs.end(),
              std::back_inserter(sequence->prompt_logprobs));
    cache_.commit(
        &sequence->table,
        std::span<const int32_t>(sequence->tokens).first(static_cast<size_t>(sequence->complete_len)));
    if (sequence->max_outputs == 0 && sequence->computed_len == sequence->prompt_len) {
      TokenEvent event;
      event.prompt_logprobs = std::move(sequence->prompt_logprobs);
      event.cache_miss = std::exchange(sequence->cache_miss, std::nullopt);
      return end(sequence, {FinishReason::Kind::kLength, std::nullopt, std::nullopt}, std::move(event));
    }
  }
  if (result.error) return end(sequence, {FinishReason::Kind::kAbort, std::nullopt, std::move(result.error)});
  if (!row.sample) return;
  if (row.tokens > 1 && !row.named) {
    for (SpeculationCounts* counts : {&sequence->speculation, &counters_.speculation}) {
      count_guesses(result, limits_.max_drafts, counts);
    }
  }
  account_outputs(sequence, std::move(result));
}

void SchedulerCore::account_outputs(Sequence* sequence, RowResult result) {
  TokenEvent event;
  if (speculates()) event.speculation = sequence->speculation;
  event.cache_miss = std::exchange(sequence->cache_miss, std::nullopt);
  if (sequence->num_outputs() == 0) event.prompt_logprobs = std::move(sequence->prompt_logprobs);
  const auto& stops = sequence->request.sampling.stop_token_ids;
  for (TokenOutput& output : result.outputs) {
    const int32_t token = output.token;
    sequence->tokens.push_back(token);
    ++counters_.generated_tokens;
    event.outputs.push_back(std::move(output));
    // What was guessed after the end is dropped.
    if (std::find(stops.begin(), stops.end(), token) != stops.end()) {
      return end(sequence, {FinishReason::Kind::kStop, token, std::nullopt}, std::move(event));
    }
    if (sequence->num_outputs() >= sequence->max_outputs) {
      return end(sequence, {FinishReason::Kind::kLength, std::nullopt, std::nullopt}, std::move(event));
    }
  }
  event.cached_tokens = sequence->cached_tokens;
  event.retractions = sequence->retractions;
  event.time_ns = now_ns_;
  push(sequence->stream, std::move(event));
}

void SchedulerCore::push(const std::shared_ptr<TokenStream>& stream, TokenEvent event) {
  if (holding_)
    held_.push_back({stream, std::move(event)});
  else
    stream->push(std::move(event));
}

void SchedulerCore::tell() {
  holding_ = false;
  for (Told& told : held_) told.stream->push(std::move(told.event));
  held_.clear();
}

}  // namespace fathom::sched

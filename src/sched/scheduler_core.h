// All decisions of the scheduler, synchronous and without a thread or a clock of its own, so that a test can
// drive it step by step.
//
// The caller loops: plan() -> hand the plan to the executor -> account() with its result. Up to two plans may
// be out at once (one with overlap off, more where the executor has stages); results come back in order. A
// request is waiting (no pages, no slot), running (a slot and a block table), or ended and, for at most one
// more step, held until the rows that touch its pages are done.
//
// Not thread safe. Progress: the request that came first of those that run is never preempted while another
// runs, every request alone fits the pool (admissible() refuses the others), and preempted requests are
// readmitted first.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "core/executor.h"
#include "core/request.h"
#include "kv/kv_cache.h"
#include "sched/new_token_ratio.h"
#include "sched/prompt_budget.h"
#include "sched/rate_meter.h"
#include "sched/scheduler_options.h"
#include "sched/sequence.h"
#include "sched/speculation_gain.h"
#include "sched/waiting_queue.h"

namespace fathom::sched {

class SchedulerCore {
 public:
  SchedulerCore(const SchedulerOptions& options, const ExecutorLimits& limits, const Clock& clock);

  // Could this request ever run? kInvalidArgument with the reason and what to lower. Thread safe: looks at
  // constants only.
  Result<void> admissible(const GenerateRequest& request) const;
  // Prompt and output tokens together.
  int32_t max_request_tokens() const;

  // An admissible request. One whose id is taken ends at once with an error in its stream.
  void add(GenerateRequest request, std::shared_ptr<TokenStream> stream);
  void cancel(const std::string& id);
  void finish(const std::string& id);  // its text has ended
  void cancel_all();
  Result<void> flush_cache();

  // The next step, if there is something to compute that does not depend on a result still out. Nothing: call
  // account, or add, or sleep.
  std::optional<BatchPlan> plan();
  // The result of the oldest plan out. An error ends every request with it, and all later ones.
  void account(Result<StepResult> result);

  // From here on what streams shall hear waits for tell(): to wake a reader takes microseconds, and a step
  // has many, which the next step need not wait for.
  void hold_events() { holding_ = true; }
  void tell();
  bool has_held_events() const { return !held_.empty(); }

  size_t steps_in_flight() const { return in_flight_.size(); }
  bool can_plan_ahead() const { return in_flight_.size() < max_in_flight(); }
  bool idle() const { return running_.empty() && waiting_.empty(); }
  // Every request has been answered, and the pages of some come back with a step that is out.
  bool settling() const { return waiting_.empty() && !running_.empty() && num_active() == 0; }
  size_t waiting() const { return waiting_.size(); }
  const std::optional<Error>& fault() const { return fault_; }
  SchedulerStats stats() const;

  // Walks everything, for tests: the pages (KvCache::check_integrity) and each sequence's counters.
  Result<void> check_integrity() const;

 private:
  struct PlannedRow {
    Sequence* sequence = nullptr;
    int32_t tokens = 0;
    bool prompt = false;  // tokens of the prompt
    bool extend = false;
    bool sample = false;
    bool named = false;  // the row names its tokens
  };
  struct PlannedStep {
    uint64_t step = 0;
    std::vector<PlannedRow> rows;
    int64_t planned_ns = 0;
    bool guesses = false;  // some row may
    int64_t looks = 0;     // PromptBudget::Step's
    bool behind = false;   // PromptBudget::note's

    int32_t tokens(bool extend) const;  // of the rows of prompts, or of those of outputs
  };
  struct Draft;  // a plan under construction

  bool speculates() const { return limits_.max_drafts > 0; }
  // One for each stage of the executor, and one ahead. A step that guesses tokens says only at its end where
  // its sequences stand, so it is out alone.
  size_t max_in_flight() const {
    if (!in_flight_.empty() && in_flight_.back().guesses) return 1;
    const auto stages = static_cast<size_t>(options_.stages);
    return options_.disable_overlap_schedule ? stages : stages + 1;
  }
  // Whether a sequence that can decode has its turn in the next step, where `count` can.
  bool has_turn(const Sequence& sequence, int32_t count) const;

  // step_planning.cc
  void draft_rows(Draft* draft);
  bool secure_decode_memory(Draft* draft);
  int32_t drafts_for(const Sequence& sequence) const;
  void draft_decode_rows(Draft* draft);
  void draft_prompt_rows(Draft* draft);
  int32_t draft_prompt_row(Sequence* sequence, int32_t max_tokens, Draft* draft);
  void add_row(Sequence* sequence, BatchRow row, Draft* draft);

  // admission.cc
  Sequence* admit_next(Draft* draft);
  bool waits_for_prefix(Sequence* candidate, const Draft& draft) const;
  void explain_miss(Sequence* sequence, size_t limit);
  bool fits(const Sequence& candidate, const kv::BlockTable& table) const;
  int32_t pages_expected_by_running() const;

  // preemption.cc
  Sequence* choose_victim() const;
  void preempt(Sequence* sequence);
  void preempt_for_decoding();
  size_t num_active() const;

  // accounting.cc
  void account_row(const PlannedRow& row, RowResult result);
  void note_gain(const PlannedStep& step, int64_t ns, int64_t outputs);
  void account_outputs(Sequence* sequence, RowResult result);
  void push(const std::shared_ptr<TokenStream>& stream, TokenEvent event);
  void end(const std::string& id, FinishReason::Kind kind);
  void end(Sequence* sequence, FinishReason reason, TokenEvent event = {});
  static std::span<const int32_t> computed_tokens(const Sequence& sequence);
  void release(Sequence* sequence);
  void sweep();
  void fail(Error error);

  const SchedulerOptions options_;
  const ExecutorLimits limits_;
  const Clock& clock_;
  int32_t max_running_;
  kv::KvCache cache_;
  NewTokenRatio ratio_;
  RateMeter rate_;
  SpeculationGain gain_;
  std::optional<bool> guess_next_;  // gain_ was asked of the next decode rows, which wait for a step out
  PromptBudget prompt_budget_;
  int64_t last_result_ns_ = 0;

  WaitingQueue waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;    // in order of admission; ended ones until released
  std::unordered_map<std::string, Sequence*> by_id_;  // waiting and running
  std::vector<int32_t> free_slots_;
  std::deque<PlannedStep> in_flight_;
  uint64_t next_step_ = 0;
  uint64_t next_order_ = 0;
  int64_t now_ns_ = 0;  // when the last result came
  bool last_step_extended_ = false;
  bool sweep_needed_ = false;
  std::optional<Error> fault_;
  SchedulerStats counters_;

  struct Told {
    std::shared_ptr<TokenStream> stream;
    TokenEvent event;
  };
  std::vector<Told> held_;
  bool holding_ = false;
};

}  // namespace fathom::sched

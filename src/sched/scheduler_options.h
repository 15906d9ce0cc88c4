// Every knob of the scheduler, with the reference system's names and defaults. Where a default differs, the
// comment says so.
#pragma once

#include <chrono>
#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace fathom::sched {

enum class SchedulePolicy {
  kFcfs,  // first come, first served
  kLpm,   // longest cached prefix first
};
const char* to_string(SchedulePolicy policy);
Result<SchedulePolicy> parse_schedule_policy(std::string_view text);  // "fcfs", "lpm"

struct SchedulerOptions {
  SchedulePolicy schedule_policy = SchedulePolicy::kFcfs;  // --schedule-policy
  // --enable-priority-scheduling: a larger GenerateRequest::priority goes first, the policy breaks ties.
  bool enable_priority_scheduling = false;

  // --max-running-requests: sequences that hold pages at once; -1: as many as the executor has slots.
  int32_t max_running_requests = -1;
  // --max-queued-requests: submit answers kUnavailable above; -1: no limit.
  int32_t max_queued_requests = -1;
  // --max-total-tokens: use no more of the executor's pool than this; -1: all of it.
  int32_t max_total_tokens = -1;

  // --chunked-prefill-size: prompt tokens computed in a step, of all requests together; longer prompts take
  // several steps. -1: off, a prompt is cut only where the executor cannot take it whole.
  int32_t chunked_prefill_size = 2048;
  // --max-prefill-tokens: the same limit when chunking is off; a longer prompt then goes alone.
  int32_t max_prefill_tokens = 16384;
  // --enable-mixed-chunk: decode rows and prompt chunks share a step. The reference has it off; here it is
  // on, since a long prompt then never stops others' decoding. Off: steps of the two kinds take turns.
  bool enable_mixed_chunk = true;

  // --prefill-step-ratio: while others decode, prompts may make a step last so many times as long as one of
  // decode rows alone, by PromptBudget; 0: as chunked_prefill_size says. With mixed chunks only.
  double prefill_step_ratio = 2.0;

  // Steps that the executor computes at the same time, each by a part of the model's layers. Rows of a step
  // that need the tokens of one among them hold the others up, so that sequences take turns.
  int32_t stages = 1;
  bool disable_overlap_schedule = false;  // --disable-overlap-schedule: plan a step after the last is done
  bool disable_radix_cache = false;       // --disable-radix-cache: keep and share no prefixes

  // --watchdog-timeout: a step that takes longer never ends, for the scheduler: every request fails, and the
  // executor is given up. 0: it waits for ever.
  std::chrono::milliseconds watchdog_timeout{0};

  // --schedule-conservativeness: scales the guess below. Larger: fewer requests run, fewer are preempted.
  double schedule_conservativeness = 1.0;
  // A running request is expected to produce this share of the tokens it still may; the share falls to
  // `min_new_token_ratio_factor` of its start within `new_token_ratio_decay_steps` decode steps and jumps up
  // after a preemption.
  double init_new_token_ratio = 0.7;
  double min_new_token_ratio_factor = 0.14;
  int32_t new_token_ratio_decay_steps = 600;
  int32_t clip_max_new_tokens_estimation = 4096;  // no request is expected to produce more
  int32_t retract_decode_steps = 20;              // a preemption makes room for so many further steps

  // --speculative-adaptive: guess tokens only at sizes of batch where it makes tokens faster, as measured.
  bool speculative_adaptive = true;

  // A waiting request that could share at least this many more prompt tokens with one that is computing them
  // now waits for them instead of computing them again; under lpm, waiting requests that share as many with
  // another waiting one go last.
  int32_t in_batch_prefix_tokens = 32;
  // lpm: a request that has waited for so many steps goes before better matches.
  int32_t lpm_patience_steps = 1024;
};

}  // namespace fathom::sched

// A plan under construction; seen by SchedulerCore's files only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "sched/scheduler_core.h"

namespace fathom::sched {

struct SchedulerCore::Draft {
  BatchPlan plan;
  PlannedStep step;
  int32_t tokens_left = 0;  // of the executor's limit for a step
  bool decode_turn = true;  // rows of output tokens may be added
  bool extend_turn = true;  // rows of prompt tokens may be added
  bool may_admit = true;
  bool extended = false;
  bool speculates = false;           // there are pages for guessed tokens
  bool waits = false;                // its decode rows would guess, and a step is out
  std::vector<Sequence*> computing;  // running ones whose prompt will still add to the prefix cache
};

}  // namespace fathom::sched

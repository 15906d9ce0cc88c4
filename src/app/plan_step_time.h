// `fathom plan --step-time`: the layouts of as many GPUs, side by side.
#pragma once

#include "base/result.h"
#include "engine/layout/layout_plan.h"

namespace fathom::app {

// `plan`: of `request`, for its number of GPUs and nodes. Prints for batches of 1 to 1024 sequences of
// `length` tokens what a step of each layout that fits takes, the best marked.
Result<void> print_step_times(const engine::Settings& settings, const engine::LayoutRequest& request,
                              const engine::LayoutPlan& plan, int64_t length, double routing_bias);

}  // namespace fathom::app

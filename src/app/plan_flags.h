// The flags of `fathom plan` beside those of a model, and what they ask for.
#pragma once

#include <CLI/CLI.hpp>

#include "app/args.h"
#include "base/result.h"
#include "engine/layout/layout_plan.h"

namespace fathom::app {

void add_plan_flags(CLI::App& command, PlanArgs& args);

// kInvalidArgument or kUnsupported where the flags do not go together or name a machine that Fathom does not
// run on.
Result<engine::LayoutRequest> layout_request(const PlanArgs& args);

}  // namespace fathom::app

// Where a traced step's time goes: a table by op, and a file for chrome://tracing or Perfetto.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "engine/plan.h"

namespace fathom::app {

// To standard output: calls, microseconds and share of each op, the largest first.
void print_ledger(const std::string& title, const std::vector<engine::OpTime>& ops);

// The least time of each part of a decode step: its bytes once over the bandwidth. Routed experts as uniform
// routing meets them.
void print_floors(const engine::Plan& plan, int32_t sequences, double context, double gigabytes_per_second);

// Each named step becomes a track.
Result<void> write_chrome_trace(
    const std::string& path, const std::vector<std::pair<std::string, std::vector<engine::OpTime>>>& steps);

}  // namespace fathom::app

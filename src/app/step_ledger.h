// Where a traced step's time goes: a table by op, and a file for chrome://tracing or Perfetto.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"

namespace fathom::app {

// To standard output: calls, microseconds and share of each op, the largest first.
void print_ledger(const std::string& title, const std::vector<engine::OpTime>& ops);

// Each named step becomes a track.
Result<void> write_chrome_trace(
    const std::string& path, const std::vector<std::pair<std::string, std::vector<engine::OpTime>>>& steps);

}  // namespace fathom::app

// What the flags of a model come to together, once each has been read and before anything is loaded.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "app/args.h"
#include "base/result.h"

namespace fathom::app {

// Decides what flags of `command` leave to others of them, and says so in the log, whose level it sets and
// which gets `notes` too. An Error says which flag cannot be obeyed.
Result<void> settle_flags(const CLI::App& command, const std::vector<std::string>& notes, ModelArgs& args);

// For commands without a model.
void log_notes(const std::vector<std::string>& notes);

}  // namespace fathom::app

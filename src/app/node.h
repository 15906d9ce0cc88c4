// `fathom serve` on a node other than 0: the ranks of a model, and nothing that listens to clients.
#pragma once

#include <string>

#include "app/args.h"
#include "base/result.h"

namespace fathom::app {

// What --dist-secret-file or FATHOM_DIST_SECRET says, without the line's end; empty where neither is given.
Result<std::string> read_dist_secret(const ModelArgs& args);

// Runs until node 0 ends the model. The exit code: 0 in good order, 1 after an error, which it has logged.
// SIGTERM asks node 0 to drain and end; a second one, or one before the model is loaded, ends the process.
int run_node(const ModelArgs& args);

}  // namespace fathom::app

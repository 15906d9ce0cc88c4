// What must be the same on all nodes of a model, as a user would name it.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "dist/wire.h"
#include "engine/engine.h"

namespace fathom::engine {

// Of `options` as resolved, so that a flag left out and its default are the same. `options.load.checkpoint`
// is open, or null for dummy weights. Weights are known by their names, types and shapes.
Result<std::vector<dist::Fact>> node_facts(const EngineOptions& options, const std::string& model_path,
                                           const std::string& version);

}  // namespace fathom::engine

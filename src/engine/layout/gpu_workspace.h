// What a GPU rank's activations take, for GPUs that are not at hand: the sums of model/cuda/workspace.cc for
// a rank's share, kernels' scratch rounded up.
#pragma once

#include <cstdint>

#include "engine/engine.h"
#include "model/shard.h"

namespace fathom::engine {

int64_t gpu_workspace_bytes(const EngineOptions& options, const model::Shard& shard);

}  // namespace fathom::engine

// What a model will take on this machine, before anything is loaded: for `fathom plan` and `fathom bench`.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "engine/pool_size.h"
#include "engine/settings.h"
#include "model/memory.h"

namespace fathom::engine {

struct Plan {
  ModelFacts facts;
  model::MemoryPlan memory;
  int64_t available_bytes = 0;
  int64_t checkpoint_bytes = 0;  // of the tensors that the model reads
  int64_t page_size = 0;
  int32_t max_running = 0;
  Result<PoolSize> pool = PoolSize{};  // or why it does not fit
};

// From config.json alone.
Result<Plan> plan(const Settings& settings);

}  // namespace fathom::engine

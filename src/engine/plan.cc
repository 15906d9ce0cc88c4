#include "engine/plan.h"

#include "device/arena.h"

namespace fathom::engine {

Result<Plan> plan(const Settings& settings) {
  Plan plan;
  FATHOM_ASSIGN(const EngineOptions options, resolve(settings, &plan.facts));
  model::MemoryOptions memory;
  memory.compute = options.load.compute;
  memory.kv_dtype = options.load.kv_dtype;
  memory.mla = options.load.mla;
  memory.max_tokens = options.max_step_tokens + options.max_running;
  memory.max_logit_rows = options.max_running;
  memory.max_context = plan.facts.context_length;
  plan.memory = model::plan_memory(options.config, memory);
  plan.checkpoint_bytes = model::stored_bytes(options.config);
  plan.available_bytes = static_cast<int64_t>(device::available_memory());
  plan.page_size = options.page_size;
  plan.max_running = options.max_running;

  PoolRequest request;
  request.available_bytes = plan.available_bytes;
  request.weight_bytes = plan.memory.weight_bytes + plan.memory.workspace_bytes;
  request.bytes_per_token = plan.memory.kv_bytes_per_token;
  request.page_size = options.page_size;
  request.max_context = plan.facts.context_length;
  request.max_running = options.max_running;
  request.mem_fraction = options.mem_fraction;
  request.max_total_tokens = options.max_total_tokens;
  plan.pool = size_pool(request);
  return plan;
}

}  // namespace fathom::engine

#include "engine/plan.h"

#include <cmath>
#include <string_view>

#include "device/arena.h"
#include "engine/gpu.h"
#include "model/shard.h"

namespace fathom::engine {
namespace {

const model::MemoryPart& part(const Plan& plan, std::string_view name) {
  for (const auto& candidate : plan.memory.weights) {
    if (candidate.name == name) return candidate;
  }
  check_failed(__FILE__, __LINE__, "part", std::string(name));
}

}  // namespace

Result<Plan> plan(const Settings& settings) {
  Plan plan;
  FATHOM_ASSIGN(const EngineOptions options, resolve(settings, &plan.facts));
  model::MemoryOptions memory;
  memory.compute = options.load.compute;
  memory.kv_dtype = options.load.kv_dtype;
  memory.mla = options.load.mla;
  memory.max_tokens = options.step_tokens();
  memory.max_logit_rows = options.decode_tokens();
  memory.max_context = plan.facts.context_length;
  FATHOM_ASSIGN(memory.shard, model::make_shard(options.config, options.split, 0));  // the largest
  plan.config = options.config;
  plan.ranks = options.split.tp;
  if (plan.ranks > 1) {
    // The embedding, and of each layer attention and MLP.
    plan.sum_bytes = (1 + 2 * options.config.num_layers) * options.config.hidden_size * int64_t{4};
    plan.gather_bytes = options.config.vocab_size * int64_t{4};
  }
  plan.memory = model::plan_memory(options.config, memory);
  plan.checkpoint_bytes = model::stored_bytes(options.config);
  if (options.cuda) {
    FATHOM_ASSIGN(const auto gpu, gpu_memory(options));
    plan.device = gpu.name;
    plan.available_bytes = gpu.free_bytes;
    plan.memory.workspace_bytes = gpu.workspace_bytes;
  } else {
    plan.device = "this machine";
    plan.available_bytes = static_cast<int64_t>(device::available_memory());
  }
  plan.page_size = options.page_size;
  plan.max_running = options.max_running;

  PoolRequest request;
  request.available_bytes = plan.available_bytes;
  request.weight_bytes = (plan.memory.weight_bytes + plan.memory.workspace_bytes) * plan.ranks;
  request.bytes_per_token = plan.memory.kv_bytes_per_token * plan.ranks;
  request.page_size = options.page_size;
  request.max_context = plan.facts.context_length;
  request.max_running = options.max_running;
  request.mem_fraction = options.mem_fraction;
  request.max_total_tokens = options.max_total_tokens;
  plan.pool = size_pool(request);
  return plan;
}

double prefill_flops(const Plan& plan, int64_t prompt_tokens) {
  const auto tokens = static_cast<double>(prompt_tokens);
  const auto head = static_cast<double>(part(plan, "head").parameters);
  const double body = static_cast<double>(plan.memory.active_parameters) - head -
                      static_cast<double>(part(plan, "embedding").parameters);
  const double attention_dims = static_cast<double>(plan.config.num_layers * plan.config.num_heads *
                                                    (plan.config.query_dim() + plan.config.value_dim));
  // Half of the token pairs are causal, at two operations a multiply-add.
  return 2.0 * body * tokens + 2.0 * head + attention_dims * tokens * tokens;
}

double decode_bytes(const Plan& plan, int64_t sequences, double context) {
  auto bytes = static_cast<double>(plan.memory.decode_bytes);
  if (plan.config.num_experts > 0) {
    const double share =
        static_cast<double>(plan.config.gate.top_k) / static_cast<double>(plan.config.num_experts);
    const auto experts = static_cast<double>(part(plan, "routed experts").bytes);
    bytes += experts * (1.0 - std::pow(1.0 - share, static_cast<double>(sequences)) - share);
  }
  return bytes +
         static_cast<double>(sequences) * context * static_cast<double>(plan.memory.kv_bytes_per_token);
}

}  // namespace fathom::engine

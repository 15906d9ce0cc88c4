#include "engine/plan.h"

#include <cmath>
#include <string_view>

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
  memory.draft_copies = options.cuda;
  memory.max_tokens = options.step_tokens();
  memory.max_logit_rows = options.decode_tokens();
  memory.max_context = plan.facts.context_length;
  plan.config = options.config;
  plan.memory = model::plan_memory(options.config, memory);
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

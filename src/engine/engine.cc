#include "engine/engine.h"

#include "engine/cpu_engine.h"
#include "engine/gpu.h"

namespace fathom::engine {

Engine::Engine(const EngineOptions& options) : Engine(options, options.threads, available_cpus()) {}

Engine::Engine(const EngineOptions& options, int32_t threads, const std::vector<int>& cpus)
    : speculation_(options.speculation),
      steps_at_once_(options.steps_at_once()),
      pool_(std::make_unique<ThreadPool>(threads, cpus)) {
  trace_ = std::make_unique<StepTrace>(options.trace_file);
  limits_.max_slots = options.max_running;
  limits_.page_size = options.page_size;
  limits_.max_context = options.context();
  limits_.vocab_size = static_cast<int32_t>(options.config.vocab_size);
  limits_.max_step_tokens = options.step_tokens();
  limits_.max_drafts = options.speculation.max_drafts;
  limits_.draft_layer = options.speculation.source == Speculation::Source::kDraftLayer;
}

model::LoadOptions complete_load(const EngineOptions& options) {
  model::LoadOptions load = options.load;
  load.max_tokens = options.step_tokens();
  load.max_logit_rows = options.decode_tokens();
  load.max_context = options.context();
  // Little beside the share of memory that no pool takes.
  if (!options.cuda && !options.absorb_prompts)
    load.kept_bytes = static_cast<int64_t>(device::available_memory()) / 64 / options.replicas;
  return load;
}

PoolRequest pool_request(const EngineOptions& options, int64_t available, int64_t taken,
                         int64_t bytes_per_token) {
  PoolRequest request;
  request.available_bytes = available;
  request.weight_bytes = taken;
  request.bytes_per_token = bytes_per_token;
  request.page_size = options.page_size;
  request.max_context = options.context();
  request.max_running = options.max_running;
  request.mem_fraction = options.mem_fraction;
  request.max_total_tokens = options.max_total_tokens;
  return request;
}

Result<std::vector<std::unique_ptr<Engine>>> Engine::start_all(const EngineOptions& options) {
  std::vector<std::unique_ptr<Engine>> engines;
  for (int32_t replica = 0; replica < options.replicas; ++replica) {
    if (options.cuda) {
      EngineOptions mine = options;
      mine.first_gpu += replica * options.gpus();
      FATHOM_ASSIGN(auto groups, start_gpu_engines(mine));
      for (auto& group : groups) engines.push_back(std::move(group));
    } else {
      FATHOM_ASSIGN(auto groups, CpuEngine::start(options, replica));
      for (auto& group : groups) engines.push_back(std::move(group));
    }
  }
  return engines;
}

Result<std::unique_ptr<Engine>> Engine::start(const EngineOptions& options) {
  FATHOM_CHECK(options.replicas * options.split.dp == 1, "{} replicas of {} groups in one engine",
               options.replicas, options.split.dp);
  FATHOM_ASSIGN(auto engines, start_all(options));
  return std::move(engines.front());
}

Result<std::vector<OpTime>> Engine::trace_step(BatchPlan /*plan*/) {
  return error(ErrorCode::kUnsupported, "steps are traced on a GPU only: use --device cuda");
}

}  // namespace fathom::engine

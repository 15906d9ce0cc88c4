#include "engine/engine.h"

#include "engine/cpu_engine.h"
#include "engine/gpu.h"

namespace fathom::engine {

Engine::Engine(const EngineOptions& options) : Engine(options, options.threads, available_cpus()) {}

Engine::Engine(const EngineOptions& options, int32_t threads, const std::vector<int>& cpus)
    : pool_(std::make_unique<ThreadPool>(threads, cpus)) {
  if (!options.trace_file.empty()) trace_ = std::make_unique<StepTrace>(options.trace_file);
  limits_.max_slots = options.max_running;
  limits_.page_size = options.page_size;
  limits_.max_context = static_cast<int32_t>(options.load.max_context > 0 ? options.load.max_context
                                                                          : options.config.max_positions);
  limits_.vocab_size = static_cast<int32_t>(options.config.vocab_size);
  limits_.max_step_tokens = options.step_tokens();
  limits_.max_drafts = options.speculation.max_drafts;
  limits_.draft_layer = options.speculation.source == Speculation::Source::kDraftLayer;
}

Result<std::vector<std::unique_ptr<Engine>>> Engine::start_all(const EngineOptions& options) {
  std::vector<std::unique_ptr<Engine>> engines;
  for (int32_t replica = 0; replica < options.replicas; ++replica) {
    if (options.cuda) {
      FATHOM_ASSIGN(auto engine, start_gpu_engine(options));
      engines.push_back(std::move(engine));
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

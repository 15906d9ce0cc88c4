#include "engine/settings.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "base/progress.h"
#include "device/arena.h"
#include "model/config.h"
#include "weights/checkpoint.h"

namespace fathom::engine {
namespace {

Result<device::DType> parse_dtype(const std::string& flag, const std::string& name, device::DType automatic) {
  if (name == "auto") return automatic;
  if (name == "float32") return device::DType::kF32;
  if (name == "bfloat16") return device::DType::kBF16;
  return error(ErrorCode::kInvalidArgument, "{}: got '{}', expected auto, bfloat16 or float32", flag, name);
}

Result<ModelFacts> collect_facts(const model::ModelConfig& config, const std::string& model_path) {
  FATHOM_ASSIGN(const auto generation, model::load_generation_config(model_path));
  ModelFacts facts;
  facts.model_type = config.model_type;
  facts.architecture = config.architecture;
  facts.vocab_size = config.vocab_size;
  facts.eos_token_ids = config.eos_token_ids;
  facts.eos_token_ids.insert(facts.eos_token_ids.end(), generation.eos_token_ids.begin(),
                             generation.eos_token_ids.end());
  std::sort(facts.eos_token_ids.begin(), facts.eos_token_ids.end());
  facts.eos_token_ids.erase(std::unique(facts.eos_token_ids.begin(), facts.eos_token_ids.end()),
                            facts.eos_token_ids.end());
  facts.bos_token_id = config.bos_token_id ? config.bos_token_id : generation.bos_token_id;
  facts.temperature = generation.temperature;
  facts.top_p = generation.top_p;
  facts.min_p = generation.min_p;
  facts.repetition_penalty = generation.repetition_penalty;
  facts.top_k = generation.top_k;
  return facts;
}

void log_start(const Engine& engine, const EngineOptions& options) {
  const auto& report = engine.report();
  const auto& config = options.config;
  LOG_INFO(
      "model: {} ({}), {} layers, {} experts, weights {:.2f} GB in memory, loaded in {:.2f} s (check {:.2f}, "
      "pack "
      "{:.2f})",
      config.architecture, config.quantisation == model::Quantisation::kNone ? "unquantised" : "FP8 blocks",
      config.num_layers, config.num_experts, static_cast<double>(report.load.weight_bytes) * 1e-9,
      report.load_seconds, report.load.check_seconds, report.load.pack_seconds);
  if (report.load.skipped_tensors > 0) {
    LOG_INFO("model: {} tensors of {} MTP layer(s) are in the checkpoint and not loaded",
             report.load.skipped_tensors, config.mtp_layers);
  }
  std::string kernels;
  for (const auto& [op, name] : report.load.implementations)
    kernels += (kernels.empty() ? "" : ", ") + op + "=" + name;
  LOG_INFO("device: cpu, {} threads, {}; {}", options.threads, device::to_string(options.load.target.isa),
           kernels);
  const auto& layout = engine.model().kv_layout();
  LOG_INFO("kv cache: {} tokens in {} pages of {} ({}, {} bytes a token, {} MiB), bound by {}",
           report.pool.pages * options.page_size, report.pool.pages, options.page_size,
           device::to_string(layout.dtype), layout.bytes_per_token(), report.pool.bytes >> 20,
           report.pool.bound);
}

}  // namespace

Result<EngineOptions> resolve(const Settings& settings, ModelFacts* facts) {
  EngineOptions options;
  FATHOM_ASSIGN(options.config, model::load_config(settings.model_path));
  FATHOM_ASSIGN(*facts, collect_facts(options.config, settings.model_path));

  if (settings.context_length > options.config.max_positions) {
    return error(ErrorCode::kInvalidArgument, "--context-length {}: the model's positions end at {}",
                 settings.context_length, options.config.max_positions);
  }
  facts->context_length =
      settings.context_length > 0 ? settings.context_length : options.config.max_positions;
  options.load.max_context = facts->context_length;

  FATHOM_ASSIGN(const auto dtype, parse_dtype("--dtype", settings.dtype, device::DType::kBF16));
  FATHOM_ASSIGN(options.load.kv_dtype, parse_dtype("--kv-cache-dtype", settings.kv_cache_dtype, dtype));
  options.load.compute = dtype == device::DType::kF32 ? ops::Compute::kF32 : ops::Compute::kBF16;
  FATHOM_ASSIGN(options.load.target.isa, device::choose_isa(settings.cpu_isa));
  options.load.mla = !settings.disable_mla;
  options.load.seed = settings.random_seed;

  options.threads = settings.threads > 0 ? settings.threads : static_cast<int32_t>(available_cpus().size());
  options.max_running = settings.max_running_requests > 0 ? settings.max_running_requests : kDefaultRunning;
  options.max_step_tokens = settings.chunked_prefill_size > 0 ? settings.chunked_prefill_size
                            : settings.chunked_prefill_size < 0
                                ? static_cast<int32_t>(std::min(facts->context_length, kUnchunked))
                                : kDefaultChunk;
  options.page_size = settings.page_size;
  options.mem_fraction = settings.mem_fraction_static;
  options.max_total_tokens = settings.max_total_tokens;
  return options;
}

Result<std::unique_ptr<Engine>> start_engine(const Settings& settings, ModelFacts* facts) {
  FATHOM_ASSIGN(EngineOptions options, resolve(settings, facts));
  std::optional<weights::Checkpoint> checkpoint;
  if (!settings.dummy) {
    const int64_t start_ns = steady_clock().now_ns();
    FATHOM_ASSIGN(checkpoint, weights::Checkpoint::open(settings.model_path));
    LOG_INFO("checkpoint: {} tensors, {:.2f} GB in {} file(s), opened in {:.3f} s",
             checkpoint->tensors().size(), static_cast<double>(checkpoint->bytes()) * 1e-9,
             checkpoint->files().size(), seconds_since(start_ns));
    options.load.checkpoint = &*checkpoint;
  }
  std::optional<Progress> progress;
  options.load.progress = [&](int64_t done, int64_t total) {
    if (!progress)
      progress.emplace(settings.dummy ? "make weights" : "load", static_cast<double>(total), "GB", 1e9);
    progress->set(static_cast<double>(done));
  };
  FATHOM_ASSIGN(auto engine, Engine::start(options));
  progress.reset();
  options.load.checkpoint = nullptr;
  log_start(*engine, options);
  return engine;
}

}  // namespace fathom::engine

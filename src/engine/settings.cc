#include "engine/settings.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "base/math.h"
#include "base/progress.h"
#include "device/arena.h"
#include "engine/gpu.h"
#include "engine/node_facts.h"
#include "model/config.h"
#include "model/shard.h"
#include "weights/checkpoint.h"

namespace fathom::engine {
namespace {

Result<device::DType> parse_dtype(const std::string& flag, const std::string& name, device::DType automatic) {
  if (name == "auto") return automatic;
  if (name == "float32") return device::DType::kF32;
  if (name == "bfloat16" || name == "bf16") return device::DType::kBF16;
  return error(ErrorCode::kInvalidArgument, "{}: got '{}', expected auto, bfloat16 or float32", flag, name);
}

Result<device::DType> parse_kv_dtype(const std::string& name, device::DType automatic, bool cuda) {
  if (name == "fp8_e4m3" || name == "fp8_e5m2") {
    if (!cuda) {
      return error(ErrorCode::kUnsupported,
                   "--kv-cache-dtype {}: on the CPU the cache is bfloat16 or float32", name);
    }
    return name == "fp8_e4m3" ? device::DType::kF8E4M3 : device::DType::kF8E5M2;
  }
  return parse_dtype("--kv-cache-dtype", name, automatic);
}

// From so wide a model on, --fp8-activations auto rounds them: a narrower one's step is bound by launches,
// and would pay in accuracy for nothing.
constexpr int64_t kFp8ActivationsWidth = 2048;

// Whether FP8 weights multiply activations that are rounded to FP8. auto: as the checkpoint was trained,
// where the GPU has the kernels and the model is wide enough to gain by them.
Result<bool> choose_fp8_activations(const Settings& settings, const EngineOptions& options) {
  const std::string& given = settings.fp8_activations;
  if (given != "auto" && given != "on" && given != "off") {
    return error(ErrorCode::kInvalidArgument, "--fp8-activations: got '{}', expected auto, on or off", given);
  }
  if (given == "off") return false;
  const char* missing =
      !options.cuda ? "on the CPU products take bfloat16 or float32 activations"
      : options.config.quantisation != model::Quantisation::kFp8Block ? "the checkpoint has no FP8 weights"
      : options.load.compute == ops::Compute::kF32 ? "--dtype float32 keeps activations float32"
      : !gpu_multiplies_fp8(settings.base_gpu_id)  ? "it needs a Hopper GPU (H100, H200)"
                                                   : nullptr;
  if (given == "on" && missing != nullptr) {
    return error(ErrorCode::kUnsupported, "--fp8-activations on: {}; leave it out", missing);
  }
  return missing == nullptr && (given == "on" || (options.config.fp8_activations &&
                                                  options.config.hidden_size >= kFp8ActivationsWidth));
}

// --device auto takes the GPU where there is one.
Result<bool> choose_cuda(const std::string& device) {
  if (device == "auto") return gpu_available();
  if (device == "cpu" || device == "cuda") return device == "cuda";
  return error(ErrorCode::kInvalidArgument, "--device: got '{}', expected auto, cpu or cuda", device);
}

// The numbers of decode rows that graphs are captured for: few steps where padding would cost most, at most
// an eighth of padding above.
std::vector<int32_t> choose_graph_sizes(const Settings& settings, int32_t max_running) {
  if (settings.disable_cuda_graph) return {};
  std::vector<int32_t> sizes = settings.cuda_graph_bs;
  const int32_t largest =
      std::min(max_running, settings.cuda_graph_max_bs > 0 ? settings.cuda_graph_max_bs : kDefaultGraphRows);
  if (sizes.empty()) {
    for (int32_t size = 1; size < largest; size += size < 4     ? 1
                                                   : size < 16  ? 4
                                                   : size < 64  ? 8
                                                   : size < 128 ? 16
                                                                : 32)
      sizes.push_back(size);
    sizes.push_back(largest);
  }
  std::erase_if(sizes, [&](int32_t size) { return size > largest; });
  std::sort(sizes.begin(), sizes.end());
  sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
  return sizes;
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

void log_start(const EngineReport& report, const EngineOptions& options) {
  const auto& config = options.config;
  LOG_INFO(
      "model: {} ({}), {} layers, {} experts, weights {:.2f} GB in memory, loaded in {:.2f} s (check {:.2f}, "
      "pack "
      "{:.2f})",
      config.architecture, config.quantisation == model::Quantisation::kNone ? "unquantised" : "FP8 blocks",
      config.num_layers, config.num_experts, static_cast<double>(report.load.weight_bytes) * 1e-9,
      report.load_seconds, report.load.check_seconds, report.load.pack_seconds);
  if (report.load.skipped_tensors > 0 && config.draft_layers == 0) {
    LOG_INFO("model: {} tensors of {} MTP layer(s) are in the checkpoint and not loaded",
             report.load.skipped_tensors, config.mtp_layers);
  }
  LOG_INFO("speculation: {}", to_string(options.speculation));
  std::string kernels;
  for (const auto& [op, name] : report.load.implementations)
    kernels += (kernels.empty() ? "" : ", ") + op + "=" + name;
  LOG_INFO("device: {}; {}", report.device, kernels);
  const auto& layout = report.kv_layout;
  LOG_INFO("kv cache: {} tokens in {} pages of {} ({}, {} bytes a token, {} MiB), bound by {}",
           report.pool.pages * options.page_size, report.pool.pages, options.page_size,
           device::to_string(layout.dtype), layout.bytes_per_token(), report.pool.bytes >> 20,
           report.pool.bound);
  if (report.graph_seconds > 0) {
    LOG_INFO("cuda graphs: {} sizes up to {} rows, captured in {:.2f} s, {} MiB", options.graph_sizes.size(),
             options.graph_sizes.back(), report.graph_seconds, report.graph_bytes >> 20);
  }
}

}  // namespace

namespace {

// The reference's meaning of its flags: --tp counts the ranks of a stage, which --enable-dp-attention splits
// in
// --dp groups; --dp alone is whole models beside each other.
Result<void> split_ranks(const Settings& settings, EngineOptions& options) {
  model::Split& split = options.split;
  split.tp = settings.tp_size;
  split.ep = settings.ep_size;
  split.redundant = settings.redundant_experts;
  if ((settings.enable_eplb || split.redundant > 0) && split.ep == 1) {
    return error(ErrorCode::kInvalidArgument,
                 "--{}: every rank has a part of every expert; spread them with --ep-size",
                 settings.enable_eplb ? "enable-eplb" : "ep-num-redundant-experts");
  }
  if (settings.enable_eplb)
    options.rebalance_passes = settings.eplb_iterations > 0 ? settings.eplb_iterations : kDefaultRebalance;
  if (options.config.draft_vocab > 0 && split.tp > 1) {
    return error(
        ErrorCode::kUnsupported,
        "--speculative-draft-vocab with --tp {}: ranks share the vocabulary; leave one of the two out",
        split.tp);
  }
  split.pp = settings.pp_size;
  split.dp = settings.enable_dp_attention ? settings.dp_size : 1;
  options.replicas = settings.enable_dp_attention ? 1 : settings.dp_size;
  if (settings.enable_dp_attention && settings.dp_size == 1) {
    return error(
        ErrorCode::kInvalidArgument,
        "--enable-dp-attention: there is one group of requests; say in how many the --tp {} ranks are "
        "split, with --dp",
        settings.tp_size);
  }
  options.first_gpu = settings.base_gpu_id;
  options.ranks_per_gpu = settings.ranks_per_gpu;
  FATHOM_TRY(model::make_shard(options.config, split, 0));
  return {};
}

Result<void> spread_over_nodes(const Settings& settings, EngineOptions& options) {
  if (settings.nnodes == 1) return {};
  const int ranks = options.split.world();
  if (settings.node_rank >= settings.nnodes) {
    return error(ErrorCode::kInvalidArgument,
                 "--node-rank {}: nodes are counted from 0; of {} the last is {}", settings.node_rank,
                 settings.nnodes, settings.nnodes - 1);
  }
  if (settings.dist_init_addr.empty()) {
    return error(ErrorCode::kInvalidArgument,
                 "--nnodes {}: needs --dist-init-addr HOST:PORT, an address of node 0 that all nodes reach",
                 settings.nnodes);
  }
  if (options.replicas > 1) {
    return error(
        ErrorCode::kUnsupported,
        "--dp {} --nnodes {}: copies of the model need no nodes that know of each other; start a server "
        "for each, or add --enable-dp-attention",
        settings.dp_size, settings.nnodes);
  }
  if (ranks % settings.nnodes != 0) {
    return error(
        ErrorCode::kInvalidArgument,
        "--nnodes {}: the {} ranks (--tp {} times --pp-size {}) do not spread evenly; make them a multiple "
        "of --nnodes",
        settings.nnodes, ranks, options.split.tp, options.split.pp);
  }
  options.nodes.nodes = settings.nnodes;
  options.nodes.node = settings.node_rank;
  options.nodes.address = settings.dist_init_addr;
  options.nodes.secret = settings.dist_secret;
  return {};
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
  FATHOM_ASSIGN(options.cuda, choose_cuda(settings.device));
  FATHOM_ASSIGN(options.load.kv_dtype, parse_kv_dtype(settings.kv_cache_dtype, dtype, options.cuda));
  FATHOM_ASSIGN(options.speculation,
                resolve_speculation(settings.speculation, options.config, settings.model_path));
  if (options.speculation.source == Speculation::Source::kDraftLayer) options.config.draft_layers = 1;
  if (options.speculation.draft_vocab > 0 && !options.cuda) {
    return error(ErrorCode::kUnsupported,
                 "--speculative-draft-vocab {}: on the CPU guesses come from the whole vocabulary; leave it "
                 "out, or use a GPU",
                 options.speculation.draft_vocab);
  }
  const int64_t guessed = round_up<int64_t>(options.speculation.draft_vocab, 128);
  options.config.draft_vocab = guessed < options.config.vocab_size ? guessed : 0;
  options.load.compute = dtype == device::DType::kF32 ? ops::Compute::kF32 : ops::Compute::kBF16;
  FATHOM_ASSIGN(options.load.target.isa, device::choose_isa(settings.cpu_isa));
  options.load.mla = !settings.disable_mla;
  // Where products round activations to bfloat16, the two ways' roundings grow into other tokens.
  const device::Isa isa = options.load.target.isa;
  const bool rounds = options.load.compute == ops::Compute::kBF16 &&
                      (isa == device::Isa::kAvx512Bf16 || isa == device::Isa::kAmx);
  options.absorb_prompts = options.load.mla && !settings.deterministic && !rounds;
  FATHOM_ASSIGN(options.fp8_activations, choose_fp8_activations(settings, options));
  options.load.seed = settings.random_seed;

  FATHOM_TRY(split_ranks(settings, options));
  FATHOM_TRY(spread_over_nodes(settings, options));
  if (settings.dist_timeout > 0) options.dist_timeout = std::chrono::seconds(settings.dist_timeout);

  options.threads = settings.threads > 0 ? settings.threads : static_cast<int32_t>(available_cpus().size());
  options.max_running = settings.max_running_requests > 0 ? settings.max_running_requests
                        : options.cuda                    ? kDefaultGpuRunning
                                                          : kDefaultRunning;
  options.max_step_tokens = settings.chunked_prefill_size > 0 ? settings.chunked_prefill_size
                            : settings.chunked_prefill_size < 0
                                ? static_cast<int32_t>(std::min(facts->context_length, kUnchunked))
                            : options.cuda ? kDefaultGpuChunk
                                           : kDefaultChunk;
  options.page_size = settings.page_size > 0 ? settings.page_size
                      : options.cuda         ? kDefaultGpuPage
                                             : kDefaultPage;
  if (options.cuda) options.graph_sizes = choose_graph_sizes(settings, options.max_running);
  options.mem_fraction = settings.mem_fraction_static;
  options.max_total_tokens = settings.max_total_tokens;
  options.trace_file = settings.trace_file;
  return options;
}

Result<std::unique_ptr<Engine>> start_engine(const Settings& settings, ModelFacts* facts) {
  if (settings.dp_size > 1) {
    return error(ErrorCode::kUnsupported,
                 "--dp {}: here one group of requests runs; leave --dp out, or serve", settings.dp_size);
  }
  FATHOM_ASSIGN(auto engines, start_engines(settings, facts));
  return std::move(engines.front());
}

namespace {

// The options of `settings` with their weights opened and their loading shown, for `start` to load.
template <class T>
Result<T> with_weights(const Settings& settings, ModelFacts* facts, Result<T> (*start)(const EngineOptions&),
                       EngineOptions* options) {
  FATHOM_ASSIGN(*options, resolve(settings, facts));
  std::optional<weights::Checkpoint> checkpoint;
  if (!settings.dummy) {
    const int64_t start_ns = steady_clock().now_ns();
    FATHOM_ASSIGN(checkpoint, weights::Checkpoint::open(settings.model_path));
    LOG_INFO("checkpoint: {} tensors, {:.2f} GB in {} file(s), opened in {:.3f} s",
             checkpoint->tensors().size(), static_cast<double>(checkpoint->bytes()) * 1e-9,
             checkpoint->files().size(), seconds_since(start_ns));
    options->load.checkpoint = &*checkpoint;
  }
  if (options->nodes.nodes > 1) {
    FATHOM_ASSIGN(options->nodes.facts, node_facts(*options, settings.model_path, settings.version));
  }
  std::optional<Progress> progress;
  options->load.progress = [&](int64_t done, int64_t total) {
    if (!progress)
      progress.emplace(settings.dummy ? "make weights" : "load", static_cast<double>(total), "GB", 1e9);
    progress->set(static_cast<double>(done));
  };
  auto started = start(*options);
  options->load.progress = nullptr;
  options->load.checkpoint = nullptr;
  return started;
}

}  // namespace

Result<std::vector<std::unique_ptr<Engine>>> start_engines(const Settings& settings, ModelFacts* facts) {
  EngineOptions options;
  FATHOM_ASSIGN(auto engines, with_weights(settings, facts, Engine::start_all, &options));
  log_start(engines.front()->report(), options);
  return engines;
}

Result<std::unique_ptr<Node>> start_node(const Settings& settings) {
  EngineOptions options;
  ModelFacts facts;
  FATHOM_ASSIGN(auto node, with_weights(settings, &facts, Node::start, &options));
  log_start(node->report(), options);
  return node;
}

}  // namespace fathom::engine

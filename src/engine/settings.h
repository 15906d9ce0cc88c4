// From the words of the command line to a running engine: reads the checkpoint's config, decides what was
// left to Fathom, and says what it chose. The model's facts that the front wing needs come back as plain
// values.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "engine/node.h"

namespace fathom::engine {

struct Settings {
  std::string model_path;
  bool dummy = false;                    // --load-format dummy
  uint64_t random_seed = 0;              // of dummy weights
  std::string dtype = "auto";            // auto | bfloat16 | float32
  std::string kv_cache_dtype = "auto";   // auto | bfloat16 | float32 | fp8_e4m3 | fp8_e5m2
  std::string fp8_activations = "auto";  // auto | on | off
  std::string device = "auto";           // auto | cpu | cuda
  bool disable_mla = false;
  // No rounding depends on how a prompt is cut; always so on GPUs, and where products round activations.
  bool deterministic = false;
  int64_t context_length = 0;  // 0: the model's
  std::string cpu_isa = "auto";
  int32_t threads = 0;               // 0: the CPUs of this process
  int32_t max_running_requests = 0;  // 0: kDefaultRunning
  int32_t chunked_prefill_size = 0;  // 0: kDefaultChunk; -1: kUnchunked, or the context
  int32_t page_size = 0;             // 0: kDefaultPage or kDefaultGpuPage
  double mem_fraction_static = 0.0;
  int64_t max_total_tokens = 0;
  bool disable_cuda_graph = false;
  std::vector<int32_t> cuda_graph_bs;  // empty: chosen
  int32_t cuda_graph_max_bs = 0;       // 0: kDefaultGraphRows
  std::string trace_file;              // empty: none
  int32_t tp_size = 1;                 // --tp: ranks of a stage
  int32_t base_gpu_id = 0;             // --base-gpu-id: of rank 0
  int32_t ranks_per_gpu = 1;           // no flag: for tests on fewer GPUs than ranks
  int32_t dp_size = 1;                 // --dp: groups of requests of the ranks, or replicas of the model
  bool enable_dp_attention = false;    // the former
  int32_t ep_size = 1;                 // parts of the routed experts
  int32_t redundant_experts = 0;       // --ep-num-redundant-experts
  bool enable_eplb = false;            // balance experts while serving
  int32_t eplb_iterations = 0;         // --eplb-rebalance-num-iterations; 0: kDefaultRebalance
  int32_t pp_size = 1;                 // stages of layers
  int32_t dist_timeout = 0;            // seconds; 0: dist::kDefaultTimeout
  int32_t nnodes = 1;                  // processes that the ranks are spread over
  int32_t node_rank = 0;               // this one
  std::string dist_init_addr;          // of node 0: HOST:PORT
  std::string dist_secret;             // that all nodes know
  std::string version;                 // of Fathom
  SpeculationSettings speculation;
};

inline constexpr int32_t kDefaultRunning = 64;
inline constexpr int32_t kDefaultChunk = 512;
inline constexpr int32_t kDefaultPage = 16;
inline constexpr int32_t kDefaultGpuRunning = 256;
inline constexpr int32_t kDefaultGpuChunk = 4096;
inline constexpr int32_t kDefaultGpuPage = 64;
inline constexpr int32_t kDefaultGraphRows = 256;
inline constexpr int32_t kDefaultRebalance = 1000;
inline constexpr int64_t kUnchunked = 16384;  // the reference's --max-prefill-tokens

// What the checkpoint says about itself, for the API.
struct ModelFacts {
  std::string model_type, architecture;
  int64_t vocab_size = 0;
  int64_t context_length = 0;
  std::vector<int32_t> eos_token_ids;  // of config.json and generation_config.json, sorted
  std::optional<int32_t> bos_token_id;
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int32_t> top_k;
};

// The options that `settings` come to for its model. Opens no weights.
Result<EngineOptions> resolve(const Settings& settings, ModelFacts* facts);

// Opens the weights (unless dummy), loads them with progress on stderr, starts the ranks, and logs what was
// chosen and how long each phase took.
Result<std::vector<std::unique_ptr<Engine>>> start_engines(const Settings& settings, ModelFacts* facts);
// On a node other than 0: the ranks alone.
Result<std::unique_ptr<Node>> start_node(const Settings& settings);
// kUnsupported where the settings ask for several.
Result<std::unique_ptr<Engine>> start_engine(const Settings& settings, ModelFacts* facts);

}  // namespace fathom::engine

// What the command line says, as plain values: one struct a subcommand. Names follow the flags, which follow
// the reference system's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "api/limits.h"
#include "api/request_log_options.h"

namespace fathom::app {

// Flags that every command which loads a model shares.
struct ModelArgs {
  std::string model_path;
  std::string tokenizer_path;            // empty: model_path
  std::string load_format = "auto";      // auto | safetensors | dummy
  std::string dtype = "auto";            // auto | bfloat16 | float32
  std::string fp8_activations = "auto";  // auto | on | off
  std::string kv_cache_dtype = "auto";   // auto | bfloat16 | float32 | fp8_e4m3 | fp8_e5m2
  int32_t context_length = 0;            // 0: the model's
  bool skip_tokenizer_init = false;
  std::string chat_template;  // a file or an encoding's name; empty: the checkpoint's
  std::string reasoning_parser = "auto";
  std::string tool_call_parser = "auto";
  std::string reasoning_field = "both";  // both | reasoning_content | reasoning
  bool enable_custom_logit_processor = false;
  std::string cache_explanations = "text";  // off | reasons | text | all
  bool disable_mla = false;
  bool enable_deterministic_inference = false;

  std::string device = "auto";  // auto | cpu | cuda
  int32_t threads = 0;          // 0: the CPUs of this process
  std::string cpu_isa = "auto";
  int32_t tp_size = 1;
  int32_t base_gpu_id = 0;
  int32_t dp_size = 1;
  bool enable_dp_attention = false;
  int32_t ep_size = 1;
  int32_t ep_num_redundant_experts = 0;
  bool enable_eplb = false;
  int32_t eplb_rebalance_num_iterations = 0;  // 0: 1000
  bool enable_ep_moe = false;                 // ep_size, where it is not given, is tp_size
  int32_t pp_size = 1;
  int32_t dist_timeout = 0;  // seconds; 0: 300
  int32_t nnodes = 1;
  int32_t node_rank = 0;
  std::string dist_init_addr;    // of node 0
  std::string dist_secret_file;  // empty: FATHOM_DIST_SECRET, or none
  std::string dist_secret;       // what it says; not a flag

  double mem_fraction_static = 0.0;      // 0: computed
  int64_t max_total_tokens = 0;          // 0: from memory
  int32_t page_size = 0;                 // 0: the device's
  int32_t max_running_requests = 0;      // 0: computed
  int32_t chunked_prefill_size = 0;      // 0: computed; -1: off
  int32_t max_queued_requests = 0;       // 0: no limit
  std::string schedule_policy = "fcfs";  // fcfs | lpm
  double schedule_conservativeness = 1.0;
  double prefill_step_ratio = -1.0;  // 0: no limit; negative: by the device
  bool enable_priority_scheduling = false;
  std::string sampling_defaults = "model";  // model | openai
  int32_t watchdog_timeout = -1;            // seconds; 0: none; -1: by the device
  bool disable_radix_cache = false;
  bool disable_overlap_schedule = false;
  bool disable_mixed_chunk = false;
  bool disable_cuda_graph = false;
  std::vector<int32_t> cuda_graph_bs;        // empty: computed
  int32_t cuda_graph_max_bs = 0;             // 0: computed
  std::string speculative_algorithm;         // EAGLE | NEXTN | NGRAM; empty: none
  int32_t speculative_num_steps = 0;         // 0: 3
  int32_t speculative_eagle_topk = 0;        // 0: 1
  int32_t speculative_num_draft_tokens = 0;  // 0: steps + 1
  int32_t speculative_draft_vocab = 0;       // 0: all
  bool speculative_adaptive = true;
  bool speculative_use_rejection_sampling = true;
  double speculative_accept_threshold_single = -1;  // negative: not given
  double speculative_accept_threshold_acc = -1;
  std::string speculative_draft_model_path;  // empty: model_path
  std::string trace_file;                    // of every step
  std::optional<uint64_t> random_seed;       // of requests without a seed, and of dummy weights
  std::string log_level = "info";
};

struct ServeArgs {
  ServeArgs() { model.max_queued_requests = 4096; }

  ModelArgs model;
  std::string host = "127.0.0.1";
  int32_t port = 30000;
  std::vector<std::string> served_model_name;  // the name, and further ones
  std::string api_key;
  std::string api_key_file;
  std::string admin_api_key;
  std::string multi_tenant = "auto";         // auto | on | off
  std::string default_chat_template_kwargs;  // a JSON object
  bool split_special_tokens = true;
  std::vector<std::string> allowed_origins = {"*"};  // of web pages; "none": of none

  int32_t max_connections = 4096;
  int32_t max_concurrent_requests = 1024;
  int64_t max_header_bytes = int64_t{64} << 10;
  int64_t max_body_bytes = int64_t{64} << 20;
  int32_t header_timeout = 15;  // seconds, all of them
  int32_t body_timeout = 30;
  int32_t write_timeout = 30;
  int32_t idle_timeout = 75;
  int64_t min_bytes_per_second = 1024;
  api::Limits limits;

  int32_t drain_timeout = 30;         // seconds
  double keep_alive_interval = 10.0;  // seconds
  bool log_requests = false;
  api::RequestLogOptions request_log;
  bool enable_metrics = false;
  std::string metrics_names = "sglang";  // sglang | vllm | both
};

struct ChatArgs {
  ModelArgs model;
  std::string url;  // talk to a running server instead of loading a model
  std::string api_key;
  std::string system;
  double temperature = -1.0;  // below 0: the model's default
  double top_p = -1.0;
  int32_t max_tokens = 0;
  bool thinking = false;
};

struct GenerateArgs {
  ModelArgs model;
  std::string input;  // JSONL; "-" is standard input
  std::string output = "-";
};

struct VerifyArgs {
  ModelArgs model;
  std::string golden;
  double tolerance = 0.0;  // 0: by dtype
  double max_kl = 0.0;     // 0: by dtype
};

struct PlanArgs {
  ModelArgs model;
  int32_t nnodes = 1;
  std::string gpu;            // a name of engine::gpu_kinds(); empty: the device here
  double gpu_memory = 0.0;    // GiB
  double node_memory = 0.0;   // GiB
  std::string weight_format;  // empty: the config's
  int64_t sequence_length = 4096;
  bool step_time = false;
  double routing_bias = 0.0;
};

struct BenchArgs {
  ModelArgs model;
  std::vector<int32_t> batch = {1};
  std::vector<int32_t> input_len = {512};
  std::vector<int32_t> output_len = {32};
  int32_t repeat = 5;
  int32_t num_prompts = 0;  // of the throughput run through the scheduler; 0: none
  std::string result_file;  // JSON, for docs/benchmarks.md
  bool step_ledger = false;
  double simulate_acceptance = -1.0;  // share of guesses that hold, whatever the model chooses; below 0: off
  bool compare_speculation = false;
  std::string ledger_trace;  // a file
};

// Parses the command line and runs its subcommand. Returns the exit code: 0 done, 1 failed, 2 a wrong command
// line.
int run_command_line(int argc, char** argv);

int run_serve(const ServeArgs& args);
int run_chat(const ChatArgs& args);
int run_generate(const GenerateArgs& args);
int run_verify(const VerifyArgs& args);
int run_plan(const PlanArgs& args);
int run_bench(const BenchArgs& args);
int run_bench_ops();  // `fathom bench ops`

}  // namespace fathom::app

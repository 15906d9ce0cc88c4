// The executor: the model on its ranks, their KV pools, and a slot of state for every running sequence. Takes
// plans of integers from the scheduler and gives back tokens; runs them one after another on threads of its
// own.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "core/executor.h"
#include "dist/group.h"
#include "dist/rendezvous.h"
#include "engine/pool_size.h"
#include "engine/speculation.h"
#include "engine/step_trace.h"
#include "model/model.h"

namespace fathom::engine {

struct EngineOptions {
  model::ModelConfig config;
  model::LoadOptions load;  // max_tokens, max_logit_rows and max_context are the engine's to fill
  bool cuda = false;        // on the GPU
  bool fp8_activations =
      false;              // of FP8 weights, on a GPU that multiplies them: model::cuda::LoadOptions::fp8_x
  int32_t first_gpu = 0;  // of rank 0; the others follow
  int32_t ranks_per_gpu = 1;     // for tests: more make sense only where kernels are small
  int32_t threads = 1;           // of all ranks together
  std::vector<int> cpus;         // that they are bound to; empty: those of the process
  model::Split split;            // over ranks, each a thread with a shard of the model
  int32_t rebalance_passes = 0;  // forward passes from one balancing of experts to the next; 0: never
  int32_t replicas = 1;          // engines with all of the model each, that share the machine
  std::chrono::milliseconds dist_timeout = dist::kDefaultTimeout;  // of a rank that others wait for
  // Processes that the ranks are spread over, where there are several; its ranks and timeout are the engine's
  // to fill.
  dist::RendezvousOptions nodes;
  // For tests: stands between a rank and its group.
  std::function<std::unique_ptr<dist::Group>(std::unique_ptr<dist::Group>)> wrap_group;
  int32_t max_running = 64;       // slots
  int32_t max_step_tokens = 512;  // prompt tokens of a step; decode rows come on top
  int32_t page_size = 16;
  double mem_fraction = 0.0;
  int64_t max_total_tokens = 0;
  // CPU: prompt tokens attend absorbed where that costs less (engine/prompt_way.h), and so their rounding
  // depends on how the prompt was cut and on what of it was cached. Else only a long prompt's last tokens do,
  // and keys and values are kept from chunk to chunk.
  bool absorb_prompts = true;
  // GPU: the numbers of rows that decode graphs are captured for, ascending; empty: no graphs.
  std::vector<int32_t> graph_sizes;
  std::string trace_file;  // empty: none
  Speculation speculation;

  // What a step's workspaces are sized for: prompt tokens, and of every slot a token and its guesses.
  int32_t decode_tokens() const { return max_running * (1 + speculation.max_drafts); }
  int32_t step_tokens() const { return max_step_tokens + decode_tokens(); }
  int32_t context() const {
    return static_cast<int32_t>(load.max_context > 0 ? load.max_context : config.max_positions);
  }
  int local_ranks() const { return split.world() / nodes.nodes; }
  // Of stages that work at the same time (GPUs); a step that guesses begins when the one before is answered.
  int32_t steps_at_once() const { return cuda && speculation.max_drafts == 0 ? split.pp : 1; }
  // Of this process.
  int32_t gpus() const { return (local_ranks() + ranks_per_gpu - 1) / ranks_per_gpu; }
  int32_t gpu_of(int rank) const { return first_gpu + rank % gpus(); }
};

// The load's part of `options`, complete.
model::LoadOptions complete_load(const EngineOptions& options);
// What the KV pool of ranks is sized by: `taken` of `available` bytes have gone to weights and workspaces.
PoolRequest pool_request(const EngineOptions& options, int64_t available, int64_t taken,
                         int64_t bytes_per_token);

// What start-up did, for its log lines and /server_info.
struct EngineReport {
  std::string device;  // "cpu, 2 threads, avx2", "cuda, NVIDIA H100 80GB HBM3"
  model::LoadReport load;
  model::KvLayout kv_layout;
  PoolSize pool;
  double load_seconds = 0.0;
  double graph_seconds = 0.0;  // capturing the decode graphs, and their memory
  int64_t graph_bytes = 0;
};

// One op of a traced step.
struct OpTime {
  std::string op;
  double start_us = 0.0, us = 0.0;
};

// How evenly the routed experts of all ranks were chosen (model::ExpertBalance), at the last balancing.
struct ExpertReport {
  int64_t balancings = 0, moved = 0;
  double imbalance_before = 1.0, imbalance = 1.0;
};

// Seconds that steps took on the device, and that it waited between the end of one and the start of the next.
struct DeviceClock {
  double busy = 0.0, idle = 0.0;
};

class Engine : public Executor {
 public:
  // Loads the model and starts its ranks. One engine for each group of requests (Split::dp) of each replica;
  // each takes steps of its own. Errors of the checkpoint and of memory come back from here.
  static Result<std::vector<std::unique_ptr<Engine>>> start_all(const EngineOptions& options);
  // Where there is one.
  static Result<std::unique_ptr<Engine>> start(const EngineOptions& options);

  const ExecutorLimits& limits() const final { return limits_; }
  const EngineReport& report() const { return report_; }
  const Speculation& speculation() const { return speculation_; }
  int32_t threads() const { return pool_->size(); }
  // What it computes at the same time where enough are submitted, and none needs the tokens of the one
  // before.
  int32_t steps_at_once() const { return steps_at_once_; }
  // Of its steps.
  StepTrace& trace() { return *trace_; }
  // The host's threads, of rank 0. Free for others (bench probes) only while no step runs.
  ThreadPool& pool() { return *pool_; }

  // Runs one step without a graph, its ops timed one by one. kUnsupported where the device cannot.
  virtual Result<std::vector<OpTime>> trace_step(BatchPlan plan);
  // A node of the model's that asked for the end, in good order. Thread safe.
  virtual std::optional<int> asked_to_end() const { return std::nullopt; }
  // Of all steps answered so far; nothing where the device is the CPU. Thread safe.
  virtual std::optional<DeviceClock> device_clock() const { return std::nullopt; }
  // Nothing where experts are not balanced. Thread safe.
  virtual std::optional<ExpertReport> experts() const { return std::nullopt; }

 protected:
  explicit Engine(const EngineOptions& options);
  // With `threads` of rank 0's, bound to `cpus`.
  Engine(const EngineOptions& options, int32_t threads, const std::vector<int>& cpus);

  ExecutorLimits limits_;
  EngineReport report_;
  Speculation speculation_;
  int32_t steps_at_once_ = 1;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<StepTrace> trace_;
};

}  // namespace fathom::engine

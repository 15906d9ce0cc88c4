// One rank's executor: the model, its KV pool, and a slot of state for every running sequence. Takes plans of
// integers from the scheduler and gives back tokens; runs them one after another on a thread of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "base/queue.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "core/executor.h"
#include "engine/pool_size.h"
#include "model/model.h"

namespace fathom::engine {

struct EngineOptions {
  model::ModelConfig config;
  model::LoadOptions load;  // max_tokens, max_logit_rows and max_context are the engine's to fill
  int32_t threads = 1;
  int32_t max_running = 64;       // slots
  int32_t max_step_tokens = 512;  // prompt tokens of a step; decode rows come on top
  int32_t page_size = 16;
  double mem_fraction = 0.0;
  int64_t max_total_tokens = 0;
};

// What start-up did, for its log lines and /server_info.
struct EngineReport {
  model::LoadReport load;
  PoolSize pool;
  double load_seconds = 0.0;
};

class Engine final : public Executor {
 public:
  // Loads the model and starts the rank's thread. Errors of the checkpoint and of memory come back from here.
  static Result<std::unique_ptr<Engine>> start(const EngineOptions& options);
  ~Engine() override;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const ExecutorLimits& limits() const override { return limits_; }
  std::future<Result<StepResult>> step(BatchPlan plan) override;

  const model::Model& model() const { return *model_; }
  const EngineReport& report() const { return report_; }
  int32_t threads() const { return pool_->size(); }
  // The threads that compute. Free for others (bench probes) only while no step runs.
  ThreadPool& pool() { return *pool_; }

 private:
  struct Slot;
  struct Batch;
  struct Work {
    BatchPlan plan;
    std::promise<Result<StepResult>> promise;
  };

  Engine();
  void serve();
  StepResult run(BatchPlan& plan);
  void open_slots(BatchPlan& plan);
  void lay_out(BatchPlan& plan);
  void choose_tokens(const BatchPlan& plan, const device::Tensor& logits, StepResult* result);
  void report_prompt(const BatchRow& row, int32_t first, RowResult* result);

  ExecutorLimits limits_;
  EngineReport report_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<device::Launch> launch_;
  std::unique_ptr<model::Model> model_;
  model::KvPool cache_;
  std::vector<Slot> slots_;
  std::unique_ptr<Batch> batch_;  // the step's arrays, kept between steps
  Queue<Work> queue_;
  std::thread thread_;
};

}  // namespace fathom::engine

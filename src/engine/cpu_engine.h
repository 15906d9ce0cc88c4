// The engine on the CPU: one thread takes the plans, all of them compute, on one rank or several.
#pragma once

#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "base/queue.h"
#include "engine/drafter.h"
#include "engine/engine.h"
#include "engine/model_ranks.h"
#include "engine/prompt_way.h"
#include "sample/mask_workers.h"

namespace fathom::engine {

class CpuEngine final : public Engine {
 public:
  // Of one replica: an engine for each group of requests.
  static Result<std::vector<std::unique_ptr<Engine>>> start(const EngineOptions& options, int32_t replica);
  ~CpuEngine() override;

  std::future<Result<StepResult>> step(BatchPlan plan) override;
  std::optional<ExpertReport> experts() const override { return model_->experts(); }
  std::optional<int> asked_to_end() const override;

 private:
  struct Slot;
  struct Batch;
  struct Work {
    BatchPlan plan;
    std::promise<Result<StepResult>> promise;
  };

  CpuEngine(const EngineOptions& options, const std::vector<int32_t>& shares, size_t share);
  void take_model(const EngineOptions& options, std::unique_ptr<ModelRanks> model);
  void serve();
  Result<StepResult> run(BatchPlan& plan);
  void open_slots(BatchPlan& plan);
  void draft(const BatchPlan& plan);
  RowMode way_of(const BatchRow& row) const;
  void lay_out(const BatchPlan& plan);
  void add_attention(const BatchRow& row, const Slot& slot, const sample::GuessTree& guesses, int32_t first,
                     int32_t count, std::vector<ops::AttentionRow>& to);
  void choose_tokens(const BatchPlan& plan, const device::Tensor& logits, StepResult* result);
  void follow(const BatchPlan& plan, const device::Tensor& hidden, const StepResult& result);
  void report_prompt(const BatchRow& row, int32_t first, RowResult* result);

  std::unique_ptr<device::Launch> launch_;
  const PromptWay prompt_way_;
  sample::MaskWorkers masks_;
  std::unique_ptr<ModelRanks> model_;
  std::unique_ptr<Drafter> drafter_;  // or none
  std::vector<Slot> slots_;
  std::unique_ptr<Batch> batch_;  // the step's arrays, kept between steps
  Queue<Work> queue_;
  std::thread thread_;
};

}  // namespace fathom::engine

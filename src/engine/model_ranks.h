// The model as an engine drives it: whole on the engine's own thread, or the ranks of its group of requests.
//
// Not thread safe, but state().
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "device/launch.h"
#include "engine/engine.h"
#include "engine/rank_world.h"
#include "model/model.h"

namespace fathom::engine {

class ModelRanks {
 public:
  // One for each group of requests (Split::dp). `options.load` is complete. `pool`: the threads of a model of
  // one rank; several have threads of their own. Errors name the rank.
  static Result<std::vector<std::unique_ptr<ModelRanks>>> build(const EngineOptions& options,
                                                                ThreadPool& pool);

  // Of every rank of every group, with the same pages: called for one group.
  Result<void> allocate_cache(int64_t num_pages, int64_t page_size);
  // The same, with as many pages as the memory has room for. `available`: of memory, before
  // the weights were loaded.
  Result<PoolSize> make_cache(const EngineOptions& options, int64_t available);
  int64_t page_size() const { return world_ != nullptr ? world_->page_size() : cache_.page_size(); }

  const model::Model& model() const { return world_ != nullptr ? world_->leader(group_) : *model_; }
  // Of all ranks of this process, in memory.
  int64_t weight_bytes() const;
  int64_t workspace_bytes() const;
  int64_t cache_bytes_per_token() const;

  // Between the two, other groups wait for this one's passes.
  void begin_step();
  void end_step();

  // As the model's, on all ranks; the batch needs no cache. A failure is final and stands in state(); what
  // the passes give since then is worth nothing.
  void forward(device::Launch& launch, model::ForwardBatch batch, model::ForwardOutput* output);
  void draft(device::Launch& launch, model::DraftBatch batch, model::ForwardOutput* output);
  device::Tensor logits(device::Launch& launch, std::span<const int32_t> rows);
  std::optional<ExpertReport> experts() const { return world_ != nullptr ? world_->experts() : std::nullopt; }
  // Another node asked for the end (RankWorld::asked_to_end).
  std::optional<int> asked_to_end() const {
    return world_ != nullptr ? world_->asked_to_end() : std::nullopt;
  }
  Result<void> state() const { return world_ != nullptr ? world_->state() : Result<void>(); }

 private:
  ModelRanks() = default;

  // One of the two.
  std::unique_ptr<model::Model> model_;
  std::shared_ptr<RankWorld> world_;
  model::KvPool cache_;  // of the model alone
  int group_ = 0;
};

}  // namespace fathom::engine

// The model on all ranks of this process: as one model to the engine, a thread and a shard for each rank. The
// engine's own thread is rank 0: it lays batches out and chooses tokens. The others are told each pass and
// compute their part of it; what they need is integers (and, to draft, hidden states), so that they keep no
// sequences.
//
// Not thread safe, but state().
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "device/launch.h"
#include "dist/group.h"
#include "engine/engine.h"
#include "model/model.h"

namespace fathom::engine {

class ModelRanks {
 public:
  // `options.load` is complete. `pool` is rank 0's threads; the others get pools of their own, and as many
  // threads as thread_shares() says. Errors name the rank.
  static Result<std::unique_ptr<ModelRanks>> build(const EngineOptions& options, ThreadPool& pool);
  // Ends the ranks. One that hangs is left behind after the group's timeout.
  ~ModelRanks();
  ModelRanks(const ModelRanks&) = delete;
  ModelRanks& operator=(const ModelRanks&) = delete;

  // Of every rank, with the same pages.
  Result<void> allocate_cache(int64_t num_pages, int64_t page_size);
  int64_t page_size() const { return cache_.page_size(); }

  int ranks() const { return static_cast<int>(followers_.size()) + 1; }
  const model::Model& model() const { return *model_; }  // rank 0's
  int64_t weight_bytes() const;                          // of all ranks, in memory
  int64_t workspace_bytes() const;

  // As the model's, on all ranks; the batch needs no cache. A failure is final and stands in state(); what
  // the passes give since then is worth nothing.
  void forward(device::Launch& launch, model::ForwardBatch batch, model::ForwardOutput* output);
  void draft(device::Launch& launch, model::DraftBatch batch, model::ForwardOutput* output);
  device::Tensor logits(device::Launch& launch, std::span<const int32_t> rows);
  Result<void> state() const { return model_->group_state(); }

 private:
  struct Follower;
  struct Pass;
  ModelRanks() = default;
  Result<void> start(const EngineOptions& options, ThreadPool& pool);
  void tell(Pass pass);
  static void follow(Follower& follower);

  std::unique_ptr<dist::Group> group_;  // rank 0's; none where it is alone
  std::unique_ptr<model::Model> model_;
  model::KvPool cache_;
  // Shared with their threads, which may outlive this.
  std::vector<std::shared_ptr<Follower>> followers_;
  std::chrono::milliseconds timeout_{0};
};

// Threads of each rank when `threads` are split over `ranks`, at least one each.
std::vector<int32_t> thread_shares(int32_t threads, int32_t ranks);
// The processors of `cpus` that rank `rank` binds its threads to, so that ranks do not share any they need
// not.
std::vector<int> cpu_share(const std::vector<int>& cpus, const std::vector<int32_t>& shares, size_t rank);

}  // namespace fathom::engine

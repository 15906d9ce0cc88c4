#include "engine/model_ranks.h"

#include <utility>

namespace fathom::engine {

Result<std::vector<std::unique_ptr<ModelRanks>>> ModelRanks::build(const EngineOptions& options,
                                                                   ThreadPool& pool) {
  std::vector<std::unique_ptr<ModelRanks>> groups;
  if (options.split.world() == 1) {
    groups.emplace_back(new ModelRanks());
    FATHOM_ASSIGN(groups.front()->model_, model::Model::build(options.config, options.load, pool));
    return groups;
  }
  FATHOM_ASSIGN(const auto world, RankWorld::start(options));
  for (int group = 0; group < options.split.dp; ++group) {
    groups.emplace_back(new ModelRanks());
    groups.back()->world_ = world;
    groups.back()->group_ = group;
  }
  return groups;
}

Result<void> ModelRanks::allocate_cache(int64_t num_pages, int64_t page_size) {
  if (world_ != nullptr) return world_->allocate_cache(num_pages, page_size);
  FATHOM_ASSIGN(cache_, model::KvPool::allocate(model_->kv_layout(), num_pages, page_size));
  return {};
}

Result<PoolSize> ModelRanks::make_cache(const EngineOptions& options, int64_t available) {
  const PoolRequest request =
      pool_request(options, available, weight_bytes() + workspace_bytes(), cache_bytes_per_token());
  if (world_ != nullptr) return world_->make_cache(request);
  FATHOM_ASSIGN(const PoolSize size, size_pool(request));
  FATHOM_TRY(allocate_cache(size.pages, options.page_size));
  return size;
}

int64_t ModelRanks::weight_bytes() const {
  return world_ != nullptr ? world_->weight_bytes() : model_->report().weight_bytes;
}
int64_t ModelRanks::workspace_bytes() const {
  return world_ != nullptr ? world_->workspace_bytes() : model_->report().workspace_bytes;
}
int64_t ModelRanks::cache_bytes_per_token() const {
  return world_ != nullptr ? world_->cache_bytes_per_token() : model_->kv_layout().bytes_per_token();
}

void ModelRanks::begin_step() {
  if (world_ != nullptr) world_->begin_step(group_);
}
void ModelRanks::end_step() {
  if (world_ != nullptr) world_->end_step(group_);
}

void ModelRanks::forward(device::Launch& launch, model::ForwardBatch batch, model::ForwardOutput* output) {
  if (world_ != nullptr) {
    *output = world_->run(group_, RankPass::forward(batch, page_size()));
    return;
  }
  batch.cache = &cache_;
  model_->forward(launch, batch, output);
}

void ModelRanks::draft(device::Launch& launch, model::DraftBatch draft, model::ForwardOutput* output) {
  if (world_ != nullptr) {
    *output = world_->run(group_, RankPass::draft(draft, page_size(), model().config().hidden_size));
    return;
  }
  draft.batch.cache = &cache_;
  model_->draft(launch, draft, output);
}

device::Tensor ModelRanks::logits(device::Launch& launch, std::span<const int32_t> rows) {
  if (world_ != nullptr) return world_->run(group_, RankPass::logits(rows)).logits;
  return model_->logits(launch, rows);
}

}  // namespace fathom::engine

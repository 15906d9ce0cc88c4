#include "engine/model_ranks.h"

#include <algorithm>
#include <future>
#include <thread>
#include <utility>

#include "base/log.h"
#include "base/math.h"
#include "base/queue.h"
#include "dist/thread_group.h"

namespace fathom::engine {

// A pass with all that it reads: rank 0 goes on while others still look at it.
struct ModelRanks::Pass {
  enum class Kind { kForward, kDraft, kLogits };
  Kind kind = Kind::kForward;
  std::vector<int32_t> token_ids, positions, logit_rows;
  std::vector<int64_t> places;
  std::vector<ops::AttentionRow> extend_rows, decode_rows;
  std::vector<std::vector<int32_t>> block_tables;  // of the rows
  std::vector<float> hidden;                       // [T, H] of a draft
  int64_t width = 0;                               // H

  Pass(Kind kind_in, const model::ForwardBatch& batch, int64_t page_size)
      : kind(kind_in),
        token_ids(batch.token_ids, batch.token_ids + batch.tokens),
        positions(batch.positions, batch.positions + batch.tokens),
        logit_rows(batch.logit_rows.begin(), batch.logit_rows.end()),
        places(batch.places, batch.places + batch.tokens) {
    block_tables.reserve(batch.extend_rows.size() + batch.decode_rows.size());
    const auto copy = [&](std::span<const ops::AttentionRow> from, std::vector<ops::AttentionRow>& to) {
      for (ops::AttentionRow row : from) {
        const int64_t pages = ceil_div<int64_t>(row.start + row.count, page_size);
        block_tables.emplace_back(row.block_table, row.block_table + pages);
        row.block_table = block_tables.back().data();
        to.push_back(row);
      }
    };
    copy(batch.extend_rows, extend_rows);
    copy(batch.decode_rows, decode_rows);
  }
  explicit Pass(std::span<const int32_t> rows) : kind(Kind::kLogits), logit_rows(rows.begin(), rows.end()) {}

  model::ForwardBatch batch(const model::KvPool& cache) const {
    model::ForwardBatch batch;
    batch.tokens = static_cast<int64_t>(token_ids.size());
    batch.token_ids = token_ids.data();
    batch.positions = positions.data();
    batch.places = places.data();
    batch.extend_rows = extend_rows;
    batch.decode_rows = decode_rows;
    batch.logit_rows = logit_rows;
    batch.cache = &cache;
    return batch;
  }
};

struct ModelRanks::Follower {
  int rank = 0;
  std::unique_ptr<dist::Group> group;
  std::unique_ptr<ThreadPool> pool;
  std::unique_ptr<device::Launch> launch;
  std::unique_ptr<model::Model> model;
  model::KvPool cache;
  Queue<std::shared_ptr<const Pass>> passes;
  std::promise<Result<void>> built;
  std::promise<void> ended;
  std::thread thread;
};

std::vector<int32_t> thread_shares(int32_t threads, int32_t ranks) {
  std::vector<int32_t> shares;
  for (int32_t r = 0; r < ranks; ++r) {
    shares.push_back(std::max(1, threads / ranks + (r < threads % ranks ? 1 : 0)));
  }
  return shares;
}

std::vector<int> cpu_share(const std::vector<int>& cpus, const std::vector<int32_t>& shares, size_t rank) {
  std::vector<int> mine;
  size_t first = 0;
  for (size_t r = 0; r < rank; ++r) first += static_cast<size_t>(shares[r]);
  for (size_t i = 0; i < static_cast<size_t>(shares[rank]); ++i)
    mine.push_back(cpus[(first + i) % cpus.size()]);
  return mine;
}

Result<std::unique_ptr<ModelRanks>> ModelRanks::build(const EngineOptions& options, ThreadPool& pool) {
  std::unique_ptr<ModelRanks> ranks(new ModelRanks());
  FATHOM_TRY(ranks->start(options, pool));
  return ranks;
}

Result<void> ModelRanks::start(const EngineOptions& options, ThreadPool& pool) {
  model::LoadOptions load = options.load;
  if (options.tp == 1) {
    FATHOM_ASSIGN(model_, model::Model::build(options.config, load, pool));
    return {};
  }
  timeout_ = options.dist_timeout;
  auto groups = dist::make_thread_groups(options.tp, timeout_);
  if (options.wrap_group) {
    for (auto& group : groups) group = options.wrap_group(std::move(group));
  }
  load.local_ranks = options.tp;
  const auto shares = thread_shares(options.threads, options.tp);
  model::LoadOptions quiet = load;
  quiet.progress = nullptr;  // rank 0's stands for all: the shares are alike
  for (int rank = 1; rank < options.tp; ++rank) {
    auto follower = std::make_shared<Follower>();
    const auto index = static_cast<size_t>(rank);
    follower->rank = rank;
    follower->group = std::move(groups[index]);
    quiet.group = follower->group.get();
    followers_.push_back(follower);
    follower->thread = std::thread([follower, quiet, config = options.config, share = shares[index],
                                    cpus = cpu_share(available_cpus(), shares, index)] {
      follower->pool = std::make_unique<ThreadPool>(share, cpus);
      follower->launch = std::make_unique<device::Launch>(*follower->pool);
      auto model = model::Model::build(config, quiet, *follower->pool);
      const bool built = model.ok();
      if (built) follower->model = std::move(*model);
      follower->built.set_value(built ? Result<void>() : Result<void>(model.error()));
      if (built) follow(*follower);
      // Here, and not where the last owner happens to be: whoever waits for this rank is told at once.
      follower->group.reset();
      follower->ended.set_value();
    });
  }
  group_ = std::move(groups[0]);
  load.group = group_.get();
  auto model = model::Model::build(options.config, load, pool);
  Result<void> built = model.ok() ? Result<void>() : Result<void>(model.error());
  for (auto& follower : followers_) {
    auto theirs = follower->built.get_future().get();
    if (built.ok()) built = std::move(theirs);
  }
  FATHOM_TRY(built);
  model_ = std::move(*model);
  return {};
}

ModelRanks::~ModelRanks() {
  for (auto& follower : followers_) follower->passes.close();
  for (auto& follower : followers_) {
    if (follower->ended.get_future().wait_for(timeout_) == std::future_status::ready) {
      follower->thread.join();
    } else {
      LOG_ERROR("rank {} did not end within {:.1f} s and is left behind", follower->rank,
                std::chrono::duration<double>(timeout_).count());
      follower->thread.detach();
    }
  }
}

Result<void> ModelRanks::allocate_cache(int64_t num_pages, int64_t page_size) {
  FATHOM_ASSIGN(cache_, model::KvPool::allocate(model_->kv_layout(), num_pages, page_size));
  // They wait for their first pass.
  for (auto& follower : followers_) {
    FATHOM_ASSIGN(follower->cache,
                  model::KvPool::allocate(follower->model->kv_layout(), num_pages, page_size));
  }
  return {};
}

int64_t ModelRanks::weight_bytes() const {
  int64_t bytes = model_->report().weight_bytes;
  for (const auto& follower : followers_) bytes += follower->model->report().weight_bytes;
  return bytes;
}

int64_t ModelRanks::workspace_bytes() const {
  int64_t bytes = model_->report().workspace_bytes;
  for (const auto& follower : followers_) bytes += follower->model->report().workspace_bytes;
  return bytes;
}

void ModelRanks::forward(device::Launch& launch, model::ForwardBatch batch, model::ForwardOutput* output) {
  batch.cache = &cache_;
  if (!followers_.empty()) tell(Pass(Pass::Kind::kForward, batch, page_size()));
  model_->forward(launch, batch, output);
}

void ModelRanks::draft(device::Launch& launch, model::DraftBatch draft, model::ForwardOutput* output) {
  draft.batch.cache = &cache_;
  if (!followers_.empty()) {
    Pass pass(Pass::Kind::kDraft, draft.batch, page_size());
    pass.width = model_->config().hidden_size;
    for (const float* state : draft.hidden) pass.hidden.insert(pass.hidden.end(), state, state + pass.width);
    tell(std::move(pass));
  }
  model_->draft(launch, draft, output);
}

device::Tensor ModelRanks::logits(device::Launch& launch, std::span<const int32_t> rows) {
  if (!followers_.empty()) tell(Pass(rows));
  return model_->logits(launch, rows);
}

void ModelRanks::tell(Pass pass) {
  const auto shared = std::make_shared<const Pass>(std::move(pass));
  for (auto& follower : followers_) follower->passes.push(shared);
}

void ModelRanks::follow(Follower& follower) {
  model::ForwardOutput output;
  while (const auto taken = follower.passes.pop()) {
    const Pass& pass = **taken;
    switch (pass.kind) {
      case Pass::Kind::kForward:
        follower.model->forward(*follower.launch, pass.batch(follower.cache), &output);
        break;
      case Pass::Kind::kDraft: {
        std::vector<const float*> hidden;
        for (size_t t = 0; t < pass.token_ids.size(); ++t)
          hidden.push_back(pass.hidden.data() + static_cast<int64_t>(t) * pass.width);
        follower.model->draft(*follower.launch, {pass.batch(follower.cache), hidden}, &output);
        break;
      }
      case Pass::Kind::kLogits:
        follower.model->logits(*follower.launch, pass.logit_rows);
    }
  }
}

}  // namespace fathom::engine

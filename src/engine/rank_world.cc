#include "engine/rank_world.h"

#include <algorithm>
#include <future>
#include <thread>
#include <utility>

#include "base/log.h"
#include "base/queue.h"
#include "dist/thread_group.h"

namespace fathom::engine {

using TimePoint = std::chrono::steady_clock::time_point;

namespace {

// Between two steps an engine answers requests and gets its next plan. Others wait so long for it: to begin
// without it would cost it a whole pass.
constexpr std::chrono::microseconds kBetweenSteps{1000};

}  // namespace

// A group of requests as its engine drives it.
struct RankWorld::Group {
  std::shared_ptr<const RankPass> posted;  // wanted, and not begun
  bool running = false;                    // begun, and not over
  bool in_step = false;
  TimePoint step_end{};  // of the last one
};

struct RankWorld::Board {
  std::mutex mutex;
  std::condition_variable changed;  // a group posted, ended a step, or has its output
  std::vector<Group> groups;
  ExpertReport experts;
};

struct RankWorld::Rank {
  int rank = 0;
  model::Place place;
  std::shared_ptr<Board> board;
  std::unique_ptr<dist::Group> group;
  std::unique_ptr<ThreadPool> pool;
  std::unique_ptr<device::Launch> launch;
  std::unique_ptr<model::Model> model;
  model::KvPool cache;
  model::ForwardOutput output;  // of the last pass
  Queue<std::shared_ptr<const WorldPass>> passes;
  std::promise<Result<void>> built;
  std::promise<void> ended;
  std::thread thread;

  bool leads() const { return place.stage == 0 && place.lane == 0; }
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

Result<std::shared_ptr<RankWorld>> RankWorld::start(const EngineOptions& options) {
  std::shared_ptr<RankWorld> world(new RankWorld());
  FATHOM_TRY(world->build(options));
  return world;
}

Result<void> RankWorld::build(const EngineOptions& options) {
  split_ = options.split;
  timeout_ = options.dist_timeout;
  rebalance_passes_ = options.rebalance_passes;
  board_ = std::make_shared<Board>();
  board_->groups.resize(static_cast<size_t>(split_.dp));
  const int size = split_.world();
  auto handles = dist::make_thread_groups(size, timeout_);
  if (options.wrap_group) {
    for (auto& handle : handles) handle = options.wrap_group(std::move(handle));
  }
  model::LoadOptions load = options.load;
  load.split = split_;
  load.local_ranks = size;
  const auto shares = thread_shares(options.threads, size);
  const std::vector<int> cpus = options.cpus.empty() ? available_cpus() : options.cpus;
  for (int r = 0; r < size; ++r) {
    const auto index = static_cast<size_t>(r);
    auto rank = std::make_shared<Rank>();
    rank->rank = r;
    rank->place = model::place_of(split_, r);
    rank->group = std::move(handles[index]);
    rank->board = board_;
    load.group = rank->group.get();
    if (r == 1) load.progress = nullptr;  // rank 0's stands for all: the shares are alike
    ranks_.push_back(rank);
    rank->thread = std::thread(
        [rank, load, config = options.config, share = shares[index], cpus = cpu_share(cpus, shares, index)] {
          rank->pool = std::make_unique<ThreadPool>(share, cpus);
          rank->launch = std::make_unique<device::Launch>(*rank->pool);
          auto model = model::Model::build(config, load, *rank->pool);
          const bool built = model.ok();
          if (built) rank->model = std::move(*model);
          rank->built.set_value(built ? Result<void>() : Result<void>(model.error()));
          if (built) serve(*rank);
          // Here, and not where the last owner happens to be: whoever waits for this rank is told at once.
          rank->model.reset();
          rank->group.reset();
          rank->ended.set_value();
        });
  }
  Result<void> built;
  for (auto& rank : ranks_) {
    auto theirs = rank->built.get_future().get();
    if (built.ok()) built = std::move(theirs);
  }
  return built;
}

RankWorld::~RankWorld() {
  for (auto& rank : ranks_) rank->passes.close();
  for (auto& rank : ranks_) {
    if (rank->ended.get_future().wait_for(timeout_) == std::future_status::ready) {
      rank->thread.join();
    } else {
      LOG_ERROR("rank {} did not end within {:.1f} s and is left behind", rank->rank,
                std::chrono::duration<double>(timeout_).count());
      rank->thread.detach();
    }
  }
}

Result<void> RankWorld::allocate_cache(int64_t num_pages, int64_t page_size) {
  page_size_ = page_size;
  // They wait for their first pass.
  for (auto& rank : ranks_) {
    FATHOM_ASSIGN(rank->cache, model::KvPool::allocate(rank->model->kv_layout(), num_pages, page_size));
  }
  return {};
}

const model::Model& RankWorld::leader(int group) const {
  return *ranks_[static_cast<size_t>(group * split_.attention_ranks())]->model;
}

int64_t RankWorld::weight_bytes() const {
  int64_t bytes = 0;
  for (const auto& rank : ranks_) bytes += rank->model->report().weight_bytes;
  return bytes;
}

int64_t RankWorld::workspace_bytes() const {
  int64_t bytes = 0;
  for (const auto& rank : ranks_) bytes += rank->model->report().workspace_bytes;
  return bytes;
}

int64_t RankWorld::cache_bytes_per_token() const {
  int64_t bytes = 0;
  for (const auto& rank : ranks_) bytes += rank->model->kv_layout().bytes_per_token();
  return bytes;
}

Result<void> RankWorld::state() const {
  return ranks_.front()->model->group_state();
}

void RankWorld::begin_step(int group) {
  std::lock_guard lock(board_->mutex);
  board_->groups[static_cast<size_t>(group)].in_step = true;
}

void RankWorld::end_step(int group) {
  std::lock_guard lock(board_->mutex);
  Group& mine = board_->groups[static_cast<size_t>(group)];
  mine.in_step = false;
  mine.step_end = std::chrono::steady_clock::now();
  board_->changed.notify_all();
}

model::ForwardOutput RankWorld::run(int group, RankPass pass) {
  Group& mine = board_->groups[static_cast<size_t>(group)];
  FATHOM_CHECK(pass.tokens() > 0 || !pass.logit_rows.empty(), "a pass of nothing by group {}", group);
  std::unique_lock lock(board_->mutex);
  if (pass.kind == RankPass::Kind::kLogits) {  // the group's own affair
    auto alone = std::make_shared<WorldPass>();
    alone->groups.resize(board_->groups.size());
    alone->groups[static_cast<size_t>(group)] = std::make_shared<const RankPass>(std::move(pass));
    mine.running = true;
    tell_group(group, alone);
  } else {
    mine.posted = std::make_shared<const RankPass>(std::move(pass));
    board_->changed.notify_all();
    while (mine.posted != nullptr) {
      RankPass::Kind kind{};
      const TimePoint ready = ready_at(&kind);
      if (ready <= std::chrono::steady_clock::now()) {
        launch(kind);
      } else if (ready == TimePoint::max()) {
        board_->changed.wait(lock);
      } else {
        board_->changed.wait_until(lock, ready);
      }
    }
  }
  board_->changed.wait(lock, [&] { return !mine.running; });
  return ranks_[static_cast<size_t>(group * split_.attention_ranks())]->output;
}

// When the next pass may begin, and of which kind: max() while a group in a step has not come with its pass.
// Drafts go first: their groups will want a forward pass after them, with the others'.
TimePoint RankWorld::ready_at(RankPass::Kind* kind) const {
  TimePoint ready{};
  *kind = RankPass::Kind::kForward;
  for (const Group& group : board_->groups) {
    if (group.posted != nullptr) {
      if (group.posted->kind == RankPass::Kind::kDraft) *kind = RankPass::Kind::kDraft;
    } else if (group.in_step) {
      return TimePoint::max();
    } else if (group.step_end != TimePoint{}) {
      ready = std::max(ready, group.step_end + kBetweenSteps);
    }
  }
  return ready;
}

void RankWorld::launch(RankPass::Kind kind) {
  auto pass = std::make_shared<WorldPass>();
  for (Group& group : board_->groups) {
    if (group.posted != nullptr && group.posted->kind == kind) {
      pass->groups.push_back(std::exchange(group.posted, nullptr));
      group.running = true;
    } else {
      pass->groups.push_back(std::make_shared<const RankPass>(RankPass::idle(kind)));
    }
    if (split_.dp > 1) pass->group_tokens.push_back(pass->groups.back()->tokens());
  }
  if (kind == RankPass::Kind::kForward && rebalance_passes_ > 0)
    pass->balance_experts = ++passes_ % rebalance_passes_ == 0;
  for (int group = 0; group < split_.dp; ++group) tell_group(group, pass);
  board_->changed.notify_all();
}

void RankWorld::tell_group(int group, const std::shared_ptr<const WorldPass>& pass) {
  for (auto& rank : ranks_) {
    if (rank->place.group == group) rank->passes.push(pass);
  }
}

std::optional<ExpertReport> RankWorld::experts() const {
  if (rebalance_passes_ == 0) return std::nullopt;
  std::lock_guard lock(board_->mutex);
  return board_->experts;
}

void RankWorld::balance(Rank& rank) {
  const auto start = std::chrono::steady_clock::now();
  const model::ExpertBalance balance = rank.model->balance_experts();
  if (rank.rank != 0) return;  // they all see the same
  std::lock_guard lock(rank.board->mutex);
  ExpertReport& report = rank.board->experts;
  ++report.balancings;
  report.moved += balance.moved;
  report.imbalance_before = balance.before;
  report.imbalance = balance.after;
  LOG_INFO(
      "experts: the busiest ranks had {:.2f} times the mean load, now {:.2f}; {} experts came to rank 0 in "
      "{:.3f} s",
      balance.before, balance.after, balance.moved,
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
}

void RankWorld::serve(Rank& rank) {
  std::vector<const float*> hidden;
  while (const auto taken = rank.passes.pop()) {
    const WorldPass& world = **taken;
    const RankPass& pass = *world.groups[static_cast<size_t>(rank.place.group)];
    if (world.balance_experts) balance(rank);
    const auto batch = pass.batch(rank.cache, world.group_tokens);
    switch (pass.kind) {
      case RankPass::Kind::kForward:
        rank.model->forward(*rank.launch, batch, &rank.output);
        break;
      case RankPass::Kind::kDraft: {
        hidden.clear();
        const int64_t width = rank.model->config().hidden_size;
        for (int64_t t = 0; t < pass.tokens(); ++t) hidden.push_back(pass.hidden.data() + t * width);
        rank.model->draft(*rank.launch, {batch, hidden}, &rank.output);
        break;
      }
      case RankPass::Kind::kLogits:
        rank.output.logits = rank.model->logits(*rank.launch, pass.logit_rows);
    }
    // A pass of no tokens and no logits is nobody's: its group is not waiting.
    if (!rank.leads() || (pass.tokens() == 0 && pass.logit_rows.empty())) continue;
    std::lock_guard lock(rank.board->mutex);
    rank.board->groups[static_cast<size_t>(rank.place.group)].running = false;
    rank.board->changed.notify_all();
  }
}

}  // namespace fathom::engine

#include "engine/rank_world.h"

#include <algorithm>
#include <future>
#include <thread>
#include <utility>

#include "base/log.h"
#include "base/queue.h"
#include "base/thread_start.h"
#include "dist/rendezvous.h"
#include "dist/socket_group.h"
#include "dist/thread_group.h"
#include "engine/pass_turn.h"

namespace fathom::engine {

using TimePoint = PassTurn::TimePoint;

// A group of requests as its engine drives it.
struct RankWorld::Group {
  std::shared_ptr<const RankPass> posted;  // wanted, and not begun
  bool running = false;                    // begun, and not over
  bool in_step = false;
  TimePoint step_end{};  // of the last one
};

// A group whose leader is on another node: its outputs as they came from there. On node 0's first rank.
struct RankWorld::Remote {
  int leader = 0;                     // in the world
  std::unique_ptr<dist::Group> pair;  // of rank 0 and the leader; on other ranks: none
  // Forward passes' hidden states outlive the drafts after them.
  std::vector<float> logits, hidden, draft_hidden;
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
  model::ForwardOutput output;                   // of the last pass
  std::vector<std::unique_ptr<Remote>> remotes;  // [group], where its leader is on another node than 0
  std::vector<model::ForwardOutput> outputs;     // [group], on node 0's first rank: of those
  std::promise<Result<int64_t>> agreed;          // KV pages
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

Result<void> RankWorld::connect(const EngineOptions& options,
                                std::vector<std::unique_ptr<dist::Group>>* handles) {
  if (options.nodes.nodes == 1) {
    *handles = dist::make_thread_groups(split_.world(), timeout_);
    return {};
  }
  dist::RendezvousOptions nodes = options.nodes;
  nodes.ranks = split_.world() / nodes.nodes;
  nodes.timeout = timeout_;
  FATHOM_ASSIGN(dist::Wiring wiring, dist::meet_nodes(nodes));
  auto groups = dist::make_socket_groups(wiring, timeout_);
  *handles = std::move(groups.ranks);
  first_rank_ = wiring.first_rank(nodes.node);
  if (nodes.node == 0) {
    host_ = std::make_unique<dist::ControlHost>(wiring, groups.world);
  } else {
    guest_ = std::make_unique<dist::ControlGuest>(wiring, groups.world);
  }
  return {};
}

Result<void> RankWorld::build(const EngineOptions& options) {
  split_ = options.split;
  timeout_ = options.dist_timeout;
  rebalance_passes_ = options.rebalance_passes;
  board_ = std::make_shared<Board>();
  board_->groups.resize(static_cast<size_t>(split_.dp));
  limits_ = {.groups = split_.dp,
             .vocab = options.config.vocab_size,
             .hidden = options.config.hidden_size,
             .max_tokens = options.load.max_tokens,
             .max_logit_rows = options.load.max_logit_rows,
             .max_context = options.load.max_context};
  std::vector<std::unique_ptr<dist::Group>> handles;
  FATHOM_TRY(connect(options, &handles));
  const auto size = static_cast<int>(handles.size());
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
    rank->rank = first_rank_ + r;
    rank->place = model::place_of(split_, rank->rank);
    rank->group = std::move(handles[index]);
    rank->board = board_;
    rank->remotes.resize(static_cast<size_t>(split_.dp));
    rank->outputs.resize(static_cast<size_t>(split_.dp));
    for (int group = 0; group < split_.dp; ++group) {
      const int leader = group * split_.attention_ranks();
      if (leader < split_.world() / options.nodes.nodes) continue;
      rank->remotes[static_cast<size_t>(group)] = std::make_unique<Remote>();
      rank->remotes[static_cast<size_t>(group)]->leader = leader;
    }
    load.group = rank->group.get();
    if (r == 1) load.progress = nullptr;  // the first rank's stands for all: the shares are alike
    ranks_.push_back(rank);
    rank->thread = std::thread(
        [rank, load, config = options.config, share = shares[index], cpus = cpu_share(cpus, shares, index)] {
          begin_thread(fmt::format("rank {}", rank->rank).c_str());
          rank->pool = std::make_unique<ThreadPool>(share, cpus);
          rank->launch = std::make_unique<device::Launch>(*rank->pool);
          auto model = model::Model::build(config, load, *rank->pool);
          Result<void> built = model.ok() ? pair_leaders(*rank) : Result<void>(model.error());
          const bool ok = built.ok();
          if (ok) rank->model = std::move(*model);
          rank->built.set_value(std::move(built));
          if (ok) serve(*rank);
          // Here, and not where the last owner happens to be: whoever waits for this rank is told at once.
          rank->model.reset();
          rank->remotes.clear();
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

// Groups whose leaders are on other nodes: each has a pair with rank 0, to send it what its engine wants.
Result<void> RankWorld::pair_leaders(Rank& rank) {
  for (size_t group = 0; group < rank.remotes.size(); ++group) {
    if (rank.remotes[group] == nullptr) continue;
    Remote& remote = *rank.remotes[group];
    const bool member = rank.rank == 0 || rank.rank == remote.leader;
    FATHOM_ASSIGN(auto pair, rank.group->split(member ? 0 : 1, fmt::format("outputs of requests {}", group)));
    if (member) remote.pair = std::move(pair);
  }
  return {};
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
  limits_.page_size = page_size;
  limits_.pages = num_pages;
  // They wait for their first pass.
  for (auto& rank : ranks_) {
    FATHOM_ASSIGN(rank->cache, model::KvPool::allocate(rank->model->kv_layout(), num_pages, page_size));
  }
  return {};
}

Result<PoolSize> RankWorld::make_cache(const PoolRequest& request) {
  const auto make = [&]() -> Result<PoolSize> {
    FATHOM_ASSIGN(PoolSize size, size_pool(request));
    if (host_ != nullptr || guest_ != nullptr) {
      FATHOM_ASSIGN(const int64_t pages, least_pages(size.pages));
      if (pages < size.pages) size = {pages, size.bytes / size.pages * pages, "another node's memory"};
    }
    FATHOM_TRY(allocate_cache(size.pages, request.page_size));
    return size;
  };
  auto size = make();
  // The others wait for this node.
  if (!size.ok())
    ranks_.front()->group->abort(size.error().with_context(fmt::format("rank {}", first_rank_)));
  return size;
}

Result<int64_t> RankWorld::least_pages(int64_t mine) {
  auto offer = std::make_shared<WorldPass>();
  offer->pages = mine;
  for (auto& rank : ranks_) rank->passes.push(offer);
  return ranks_.front()->agreed.get_future().get();
}

void RankWorld::agree(Rank& rank, int64_t pages) {
  std::vector<int64_t> all(static_cast<size_t>(rank.group->size()));
  const auto gathered =
      rank.group->all_gather(&pages, std::vector<int64_t>(all.size(), sizeof(int64_t)), all.data());
  rank.agreed.set_value(gathered.ok() ? Result<int64_t>(*std::min_element(all.begin(), all.end()))
                                      : Result<int64_t>(gathered.error()));
}

const model::Model& RankWorld::leader(int group) const {
  const auto rank = static_cast<size_t>(group * split_.attention_ranks());
  return *ranks_[rank < ranks_.size() ? rank : 0]->model;
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
    tell(alone);
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
  const auto leader = static_cast<size_t>(group * split_.attention_ranks());
  return leader < ranks_.size() ? ranks_[leader]->output
                                : ranks_.front()->outputs[static_cast<size_t>(group)];
}

// When the next pass may begin, and of which kind: max() while a group in a step has not come with its pass.
// Drafts go first: their groups will want a forward pass after them, with the others'.
TimePoint RankWorld::ready_at(RankPass::Kind* kind) const {
  *kind = RankPass::Kind::kForward;
  for (const Group& group : board_->groups) {
    if (group.posted != nullptr && group.posted->kind == RankPass::Kind::kDraft)
      *kind = RankPass::Kind::kDraft;
  }
  return pass_begins(board_->groups, [](const Group& group) {
    return PassTurn{group.posted != nullptr, group.in_step, group.step_end};
  });
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
  tell(pass);
  board_->changed.notify_all();
}

// Under the board's mutex on node 0, so that all nodes are told in the same order.
void RankWorld::tell(const std::shared_ptr<const WorldPass>& pass) {
  if (host_ != nullptr) (void)host_->send(encode_pass(*pass));  // a failure stands in state()
  for (auto& rank : ranks_) {
    // The first rank of all takes what leaders on other nodes send.
    if (pass->groups[static_cast<size_t>(rank->place.group)] != nullptr || rank->rank == 0)
      rank->passes.push(pass);
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

Result<void> RankWorld::obey() {
  while (true) {
    FATHOM_ASSIGN(const auto message, guest_->receive());
    if (!message) return {};
    auto pass = parse_pass(*message, limits_);
    if (!pass.ok()) {
      ranks_.front()->group->abort(pass.error().with_context(fmt::format("rank {}", first_rank_)));
      return ranks_.front()->group->state();
    }
    tell(std::make_shared<const WorldPass>(std::move(*pass)));
  }
}

void RankWorld::ask_to_end() {
  if (guest_ != nullptr) guest_->ask_to_end();
}

std::optional<int> RankWorld::asked_to_end() const {
  return host_ != nullptr ? host_->asked_to_end() : std::nullopt;
}

void RankWorld::serve(Rank& rank) {
  while (const auto taken = rank.passes.pop()) {
    const WorldPass& world = **taken;
    if (world.pages > 0) {
      agree(rank, world.pages);
      continue;
    }
    if (world.balance_experts) balance(rank);
    if (const auto& pass = world.groups[static_cast<size_t>(rank.place.group)]; pass != nullptr)
      compute(rank, *pass, world.group_tokens);
    deliver(rank, world);
  }
}

void RankWorld::compute(Rank& rank, const RankPass& pass, std::span<const int64_t> group_tokens) {
  const auto batch = pass.batch(rank.cache, group_tokens);
  switch (pass.kind) {
    case RankPass::Kind::kForward:
      rank.model->forward(*rank.launch, batch, &rank.output);
      break;
    case RankPass::Kind::kDraft: {
      std::vector<const float*> hidden;
      const int64_t width = rank.model->config().hidden_size;
      for (int64_t t = 0; t < pass.tokens(); ++t) hidden.push_back(pass.hidden.data() + t * width);
      rank.model->draft(*rank.launch, {batch, hidden}, &rank.output);
      break;
    }
    case RankPass::Kind::kLogits:
      rank.output.logits = rank.model->logits(*rank.launch, pass.logit_rows);
  }
}

// The outputs of the pass to the engines that wait for them, all on node 0.
void RankWorld::deliver(Rank& rank, const WorldPass& world) {
  for (size_t group = 0; group < world.groups.size(); ++group) {
    const RankPass* pass = world.groups[group].get();
    // A pass of no tokens and no logits is nobody's: its group is not waiting.
    if (pass == nullptr || (pass->tokens() == 0 && pass->logit_rows.empty())) continue;
    Remote* remote = rank.remotes[group].get();
    if (remote == nullptr ? !rank.leads() || rank.place.group != static_cast<int>(group)
                          : remote->pair == nullptr)
      continue;
    if (remote != nullptr) hand_over(rank, *pass, *remote, &rank.outputs[group]);
    if (rank.rank != 0 && remote != nullptr) continue;
    std::lock_guard lock(rank.board->mutex);
    rank.board->groups[group].running = false;
    rank.board->changed.notify_all();
  }
}

// From the leader of a group to rank 0.
void RankWorld::hand_over(Rank& rank, const RankPass& pass, Remote& remote, model::ForwardOutput* output) {
  const model::ModelConfig& config = rank.model->config();
  const auto send = [&](std::vector<float>& buffer, device::Tensor& to, const device::Tensor& from,
                        int64_t rows, int64_t width) {
    const auto bytes = rows * width * static_cast<int64_t>(sizeof(float));
    if (rank.rank != 0) {
      // A pass that failed in its middle left no output.
      if (rank.model->group_state().ok()) (void)remote.pair->broadcast(from.data, bytes, 1);
      return;
    }
    buffer.resize(static_cast<size_t>(rows * width));
    to = device::Tensor(buffer.data(), device::DType::kF32, {rows, width});
    (void)remote.pair->broadcast(buffer.data(), bytes, 1);
  };
  send(remote.logits, output->logits, rank.output.logits, static_cast<int64_t>(pass.logit_rows.size()),
       config.vocab_size);
  // Hidden states are for who drafts.
  if (config.draft_layers == 0 || pass.kind == RankPass::Kind::kLogits) return;
  send(pass.kind == RankPass::Kind::kDraft ? remote.draft_hidden : remote.hidden, output->hidden,
       rank.output.hidden, pass.tokens(), config.hidden_size);
}

}  // namespace fathom::engine

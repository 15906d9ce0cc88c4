// The engine's ranks: how they start, take steps together and end together.
#include <algorithm>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread_start.h"
#include "device/cuda/pinned_copy.h"
#include "engine/cuda/gpu_nodes.h"
#include "engine/rank_world.h"

namespace fathom::engine::cuda {

Result<std::unique_ptr<GpuEngine>> GpuEngine::start_rank(const EngineOptions& options, int gpu,
                                                         std::unique_ptr<dist::cuda::GpuGroup> group) {
  std::unique_ptr<GpuEngine> engine(new GpuEngine(options, gpu, std::move(group)));
  FATHOM_TRY(engine->with_group(engine->run(options)));
  return engine;
}

Result<GpuEngine::Ranks> GpuEngine::start_ranks(const EngineOptions& options, const std::vector<int>& gpus,
                                                std::vector<std::unique_ptr<dist::cuda::GpuGroup>> groups,
                                                size_t speaks) {
  const auto shares = thread_shares(options.threads, static_cast<int32_t>(groups.size()));
  std::vector<std::optional<Result<std::unique_ptr<GpuEngine>>>> started(groups.size());
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < groups.size(); ++rank) {
    threads.emplace_back([&, rank] {
      begin_thread(fmt::format("rank {} start", rank).c_str());
      EngineOptions mine = options;
      mine.threads = shares[rank];
      if (rank != speaks) {  // their shares are alike
        mine.trace_file.clear();
        mine.load.progress = nullptr;
      }
      started[rank] = start_rank(mine, gpus[rank], std::move(groups[rank]));
    });
  }
  for (auto& thread : threads) thread.join();
  Ranks ranks;
  for (auto& engine : started) {
    if (!engine->ok()) return engine->error();
    ranks.push_back(std::move(**engine));
  }
  return ranks;
}

Result<std::vector<std::unique_ptr<Engine>>> GpuEngine::start(const EngineOptions& options) {
  std::vector<std::unique_ptr<Engine>> engines;
  const model::Split& split = options.split;
  const int size = options.local_ranks();
  if (split.world() == 1) {
    FATHOM_ASSIGN(auto engine, start_rank(options, options.first_gpu, nullptr));
    engines.push_back(std::move(engine));
    return engines;
  }
  std::vector<int> gpus;
  for (int rank = 0; rank < size; ++rank) gpus.push_back(options.gpu_of(rank));
  const auto board = split.dp > 1 ? std::make_shared<PassBoard>(split.dp, split.world() / split.dp) : nullptr;
  const bool spread = options.nodes.nodes > 1;
  // On the host the last stage comes first where there are several nodes.
  const int first_leader = spread ? 0 : (split.pp - 1) * split.tp;
  NodeSeat seat;
  if (spread) {
    FATHOM_ASSIGN(seat, take_seat(options, gpus));
  } else {
    dist::cuda::GpuGroupOptions wanted;
    wanted.timeout = options.dist_timeout;
    wanted.gpus = gpus;
    wanted.posts = split.dp == 1 && split.pp == 1;  // parts of the world have their own
    FATHOM_ASSIGN(seat.groups, dist::cuda::GpuGroup::create(wanted));
  }
  FATHOM_ASSIGN(Ranks ranks,
                start_ranks(options, gpus, std::move(seat.groups), static_cast<size_t>(first_leader)));
  const auto others = spread ? std::make_shared<OtherNodes>(std::move(seat.host)) : nullptr;
  if (board != nullptr && others != nullptr) {
    board->tell(
        [others](const PassBoard::Pass& pass, const std::vector<bool>& idle) { others->pass(pass, idle); });
  }
  const std::vector<int> nodes =
      spread ? leading_nodes(options) : std::vector<int>(static_cast<size_t>(split.dp), 0);
  std::vector<LeaderListener*> listeners(nodes.size());
  for (int group = 0; group < split.dp; ++group) {
    const int leading = first_leader + group * split.attention_ranks();
    if (nodes[static_cast<size_t>(group)] != 0) {
      const auto& first = engines.front();
      auto far = std::make_unique<FarGroup>(options, group, first->report(), first->limits(), board, others);
      listeners[static_cast<size_t>(group)] = far.get();
      engines.push_back(std::move(far));
      continue;
    }
    std::unique_ptr<GpuEngine> leader = std::move(ranks[static_cast<size_t>(leading)]);
    FATHOM_CHECK(leader->leads() && leader->group() == group, "rank {} leads group {}",
                 leader->group_->rank(), group);
    leader->others_ = others;
    if (board != nullptr) leader->join(board, 0);
    for (auto& follower : ranks) {
      if (follower == nullptr || follower->group() != group) continue;
      if (board != nullptr) follower->join(board, static_cast<int>(leader->followers_.size()) + 1);
      leader->lead(std::move(follower));
    }
    engines.push_back(std::move(leader));
  }
  // A leader is the first of its group's ranks: none of a far group is here.
  for (const auto& rank : ranks)
    FATHOM_CHECK(rank == nullptr, "a rank of group {} without a leader", rank->group());
  if (others != nullptr) others->listen(std::move(listeners), nodes, engines.front()->limits());
  return engines;
}

Result<GpuEngine::Followers> GpuEngine::start_over_nodes(const EngineOptions& options) {
  std::vector<int> gpus;
  for (int rank = 0; rank < options.local_ranks(); ++rank) gpus.push_back(options.gpu_of(rank));
  FATHOM_ASSIGN(NodeSeat seat, take_seat(options, gpus));
  FATHOM_ASSIGN(Ranks ranks, start_ranks(options, gpus, std::move(seat.groups), 0));
  return Followers{std::move(ranks), std::move(seat.guest)};
}

std::optional<int> GpuEngine::asked_to_end() const {
  return others_ != nullptr ? others_->asked_to_end() : std::nullopt;
}

std::future<Result<StepResult>> GpuEngine::follow(BatchPlan plan, bool eager,
                                                  std::shared_ptr<FoundMasks> found) {
  Work work;
  work.plan = std::move(plan);
  work.eager = eager;
  work.found = std::move(found);
  return submit(std::move(work));
}

void GpuEngine::join(std::shared_ptr<PassBoard> board, int member) {
  board_ = std::move(board);
  member_ = member;
  board_->join(place_.group, member, [this] {
    Work wake;
    wake.idle = true;
    (void)queue_.push(std::move(wake));  // or the engine is ending, and no group is in a step
  });
}

void GpuEngine::take_idle_passes() {
  while (const auto pass = board_->take_idle(place_.group, member_)) run_idle_pass(*pass);
}

// A step of padding alone.
void GpuEngine::run_idle_pass(const PassBoard::Pass& pass) {
  const size_t index = *free_.pop();
  Frame& frame = frames_[index];
  frame.result = {};
  frame.choices.clear();
  frame.others.clear();
  frame.idle = true;
  frame.rows = frame.tokens = 0;
  // It may come in the middle of laying out a step, which comes after it.
  StepInput input = std::exchange(input_, {});
  GuessInput guesses = std::exchange(guesses_, {});
  width_ = pass.width;
  frame.status = count_pass();
  stream_->record(frame.begun);
  if (frame.status.ok()) queue_idle_pass(pass, frame);
  stream_->record(frame.done);
  input_ = std::move(input);
  guesses_ = std::move(guesses);
  if (frame.status.ok()) frame.status = stream_->status();
  frame.status = with_group(std::move(frame.status));
  in_flight_.push(size_t{index});
}

Result<void> GpuEngine::count_pass() {
  ++passes_;
  if (rebalance_passes_ == 0 || passes_ % rebalance_passes_ != 0) return {};
  const int64_t start_ns = steady_clock().now_ns();
  FATHOM_ASSIGN(const model::ExpertBalance balance, model_->balance_experts(*stream_));
  if (!leads()) return {};
  const std::lock_guard lock(experts_mutex_);
  ++experts_.balancings;
  experts_.moved += balance.moved;
  experts_.imbalance_before = balance.before;
  experts_.imbalance = balance.after;
  if (place_.group != 0) return {};  // they all see the same
  LOG_INFO(
      "experts: the busiest ranks had {:.2f} times the mean load, now {:.2f}; {} experts came to rank {} in "
      "{:.3f} s",
      balance.before, balance.after, balance.moved, group_->rank(), seconds_since(start_ns));
  return {};
}

std::optional<ExpertReport> GpuEngine::experts() const {
  if (rebalance_passes_ == 0) return std::nullopt;
  const std::lock_guard lock(experts_mutex_);
  return experts_;
}

void GpuEngine::queue_idle_pass(const PassBoard::Pass& pass, Frame& frame) {
  const bool drafts = drafts_layer() && pass.width > 1;
  if (pass.graph_rows > 0) {
    const int64_t rows = pass.graph_rows;
    StepLayout layout(rows * width_, rows * width_);
    const GuessLayout guesses(guess_sizes(rows, layout.tokens), layout.fixed_bytes);
    layout.fixed_bytes = guesses.end;
    lay_out_rows(rows, layout.tokens);
    std::vector<model::cuda::ExtendPass> passes;
    const SlotUpdate* updates = nullptr;
    auto* device = static_cast<std::byte*>(device_input_.data());
    auto* pinned = static_cast<std::byte*>(frame.input.data());
    const int64_t bytes = input_.write(layout, pinned, device, passes, &updates);
    guesses_.write(guesses, pinned);
    device::cuda::copy_pinned(*stream_, device, pinned, static_cast<size_t>(bytes));
  }
  if (pass.graph_rows > 0) {
    if (drafts) launch_graph(pass.graph_rows, GraphKind::kDraft);
    launch_graph(pass.graph_rows, GraphKind::kForward);
  } else {
    if (drafts) draft_nothing(pass.rows);
    model::cuda::GpuBatch batch;
    batch.group_tokens = pass.places;
    batch.cache = &cache_;
    if (hands_back_later()) batch.hand_back = chosen_;
    model_->forward(*stream_, batch);
  }
  handed_back_ = passes_ - 1;
}

Result<void> GpuEngine::gather_ranks() const {
  return group_ != nullptr ? group_->host().barrier() : Result<void>();
}

Result<void> GpuEngine::with_group(Result<void> status) const {
  if (group_ == nullptr) return status;
  // The first failure is everyone's.
  if (!status.ok()) group_->abort(status.error().with_context(fmt::format("rank {}", group_->rank())));
  return group_->state();
}

std::future<Result<StepResult>> GpuEngine::submit(Work work) {
  auto future = work.promise.get_future();
  if (others_ != nullptr) others_->step(place_.group, work.plan, work.eager);
  if (!followers_.empty()) {
    if (finds_masks()) work.found = std::make_shared<FoundMasks>();
    for (auto& follower : followers_) {
      Work theirs;
      theirs.plan = work.plan;
      theirs.eager = work.eager;
      theirs.found = work.found;
      work.others.push_back(follower->submit(std::move(theirs)));
    }
  }
  FATHOM_CHECK(queue_.push(std::move(work)), "a step after the engine was told to stop");
  return future;
}

std::future<Result<StepResult>> GpuEngine::step(BatchPlan plan) {
  if (board_ != nullptr) board_->given(place_.group);
  Work work;
  work.plan = std::move(plan);
  return submit(std::move(work));
}

Result<std::vector<OpTime>> GpuEngine::trace_step(BatchPlan plan) {
  FATHOM_TRY(device::cuda::open_gpu(gpu_));
  FATHOM_ASSIGN(auto trace, device::cuda::Trace::create(8192));
  Work work;
  work.plan = std::move(plan);
  work.eager = true;
  work.trace = &trace;
  if (board_ != nullptr) board_->given(place_.group);
  FATHOM_TRY(submit(std::move(work)).get());
  FATHOM_ASSIGN(const auto spans, trace.spans());
  std::vector<OpTime> times;
  for (const auto& span : spans) times.push_back({span.op, span.start_us, span.us});
  return times;
}

Result<StepResult> GpuEngine::agreed(Result<StepResult> mine,
                                     std::vector<std::future<Result<StepResult>>>& others) const {
  for (size_t i = 0; i < others.size(); ++i) {
    const int rank = followers_[i]->group_->rank();
    const Result<StepResult> theirs = others[i].get();
    if (!mine.ok()) continue;
    const bool chooses = followers_[i]->chooses() || !hands_back_later();
    if (!theirs.ok()) {
      mine = theirs.error();
      continue;
    }
    for (size_t r = 0; chooses && r < mine->rows.size(); ++r) {
      if (mine->rows[r].error) continue;  // cut where its mask failed
      const auto& a = mine->rows[r].outputs;
      const auto& b = theirs->rows[r].outputs;
      const bool same =
          a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                             [](const auto& x, const auto& y) { return x.token == y.token; });
      if (same) continue;
      mine = error(ErrorCode::kInternal,
                   "step {}: rank {} chose token {} after row {}, rank {} token {}: their numbers differ",
                   mine->step, rank, b.empty() ? -1 : b.front().token, r, group_->rank(),
                   a.empty() ? -1 : a.front().token);
      break;
    }
  }
  others.clear();
  return mine;
}

}  // namespace fathom::engine::cuda

// The engine's ranks: how they start, take steps together and end together.
#include <thread>
#include <utility>

#include "engine/cuda/gpu_engine.h"
#include "engine/rank_world.h"

namespace fathom::engine::cuda {

Result<std::unique_ptr<GpuEngine>> GpuEngine::start_rank(const EngineOptions& options, int gpu,
                                                         std::unique_ptr<dist::cuda::GpuGroup> group) {
  std::unique_ptr<GpuEngine> engine(new GpuEngine(options, gpu, std::move(group)));
  FATHOM_TRY(engine->with_group(engine->run(options)));
  return engine;
}

Result<std::vector<std::unique_ptr<Engine>>> GpuEngine::start(const EngineOptions& options) {
  std::vector<std::unique_ptr<Engine>> engines;
  const int size = options.split.world();
  if (size == 1) {
    FATHOM_ASSIGN(auto engine, start_rank(options, options.first_gpu, nullptr));
    engines.push_back(std::move(engine));
    return engines;
  }
  dist::cuda::GpuGroupOptions wanted;
  wanted.timeout = options.dist_timeout;
  for (int rank = 0; rank < size; ++rank) wanted.gpus.push_back(options.first_gpu + rank);
  FATHOM_ASSIGN(auto groups, dist::cuda::GpuGroup::create(wanted));
  const auto shares = thread_shares(options.threads, size);
  std::vector<std::optional<Result<std::unique_ptr<GpuEngine>>>> started(groups.size());
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < groups.size(); ++rank) {
    threads.emplace_back([&, rank] {
      EngineOptions mine = options;
      mine.threads = shares[rank];
      if (rank > 0) {  // rank 0 speaks for all: their shares are alike
        mine.trace_file.clear();
        mine.load.progress = nullptr;
      }
      started[rank] = start_rank(mine, wanted.gpus[rank], std::move(groups[rank]));
    });
  }
  for (auto& thread : threads) thread.join();
  for (const auto& engine : started) {
    if (!engine->ok()) return engine->error();
  }
  if (options.split.dp > 1) {
    const auto board = std::make_shared<PassBoard>(size);
    for (auto& engine : started) {
      (**engine)->join(board);
      engines.push_back(std::move(**engine));
    }
    return engines;
  }
  std::unique_ptr<GpuEngine> leader = std::move(**started.front());
  for (size_t rank = 1; rank < started.size(); ++rank)
    leader->followers_.push_back(std::move(**started[rank]));
  engines.push_back(std::move(leader));
  return engines;
}

void GpuEngine::join(std::shared_ptr<PassBoard> board) {
  board_ = std::move(board);
  board_->join(group_->rank(), [this] {
    Work wake;
    wake.idle = true;
    (void)queue_.push(std::move(wake));  // or the engine is ending, and no group is in a step
  });
}

void GpuEngine::take_idle_passes() {
  while (const auto pass = board_->take_idle(group_->rank())) run_idle_pass(*pass);
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
  stream_->record(frame.begun);
  if (pass.graph_rows > 0) {
    StepLayout layout(pass.graph_rows, pass.graph_rows);
    const GuessLayout guesses({.rows = pass.graph_rows}, layout.fixed_bytes);
    layout.fixed_bytes = guesses.end;
    StepInput nothing;
    nothing.clear();
    nothing.logit_rows.assign(static_cast<size_t>(pass.graph_rows), -1);
    std::vector<model::cuda::ExtendPass> passes;
    const SlotUpdate* updates = nullptr;
    auto* device = static_cast<std::byte*>(device_input_.data());
    const int64_t bytes =
        nothing.write(layout, static_cast<std::byte*>(frame.input.data()), device, passes, &updates);
    stream_->copy(device, frame.input.data(), static_cast<size_t>(bytes));
    graphs_.at({pass.graph_rows, 1, GraphKind::kForward}).launch(*stream_);
  } else {
    model::cuda::GpuBatch batch;
    batch.group_tokens = pass.places;
    batch.cache = &cache_;
    model_->forward(*stream_, batch);
  }
  stream_->record(frame.done);
  frame.status = with_group(stream_->status());
  in_flight_.push(size_t{index});
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
  if (!followers_.empty()) {
    work.found = std::make_shared<FoundMasks>();
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
  if (board_ != nullptr) board_->given(group_->rank());
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
  if (board_ != nullptr) board_->given(group_->rank());
  const auto result = submit(std::move(work)).get();
  FATHOM_TRY(result);
  FATHOM_ASSIGN(const auto spans, trace.spans());
  std::vector<OpTime> times;
  for (const auto& span : spans) times.push_back({span.op, span.start_us, span.us});
  return times;
}

Result<StepResult> GpuEngine::agreed(Result<StepResult> mine,
                                     std::vector<std::future<Result<StepResult>>>& others) {
  int rank = 0;
  for (auto& other : others) {
    ++rank;
    const Result<StepResult> theirs = other.get();
    if (!mine.ok()) continue;
    if (!theirs.ok()) {
      mine = theirs.error();
      continue;
    }
    for (size_t r = 0; r < mine->rows.size(); ++r) {
      if (mine->rows[r].error) continue;  // cut where its mask failed
      const auto& a = mine->rows[r].outputs;
      const auto& b = theirs->rows[r].outputs;
      const bool same =
          a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                             [](const auto& x, const auto& y) { return x.token == y.token; });
      if (same) continue;
      mine = error(ErrorCode::kInternal,
                   "step {}: rank {} chose token {} after row {}, rank 0 token {}: their numbers differ",
                   mine->step, rank, b.empty() ? -1 : b.front().token, r, a.empty() ? -1 : a.front().token);
      break;
    }
  }
  others.clear();
  return mine;
}

}  // namespace fathom::engine::cuda

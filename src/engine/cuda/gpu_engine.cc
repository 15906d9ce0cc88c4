#include "engine/cuda/gpu_engine.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/math.h"
#include "device/cuda/pinned_copy.h"
#include "device/cuda/range.h"
#include "engine/other_nodes.h"

namespace fathom::engine::cuda {

namespace {

// How long threads spin for what a step with guesses keeps waiting, and on how many processors at least:
// three of them are taken.
constexpr std::chrono::milliseconds kAlert{50};
constexpr unsigned kAlertProcessors = 8;
// At the GPU, where it may wait for other processes.
constexpr std::chrono::microseconds kBetweenLooks{20};
// When the engine ends, for steps that nobody waits for: other processes may have ended.
constexpr std::chrono::milliseconds kFarewell{2000};

}  // namespace

GpuEngine::GpuEngine(const EngineOptions& options, int gpu, std::unique_ptr<dist::cuda::GpuGroup> group)
    : Engine(options),
      gpu_(gpu),
      group_(std::move(group)),
      place_(model::place_of(options.split, group_ != nullptr ? group_->rank() : 0)),
      leads_(place_.stage == options.split.pp - 1 && place_.lane == 0),
      masks_(options.config.vocab_size),
      slots_(static_cast<size_t>(options.max_running)),
      widest_(1 + options.speculation.max_guesses),
      kept_(widest_),
      thresholds_(options.speculation.thresholds),
      simulated_acceptance_(static_cast<float>(options.speculation.simulated_acceptance)),
      launch_(*pool_),
      rebalance_passes_(options.rebalance_passes),
      timeout_(options.dist_timeout),
      awaited_(options.nodes.node == 0 || leads_) {
  if (std::thread::hardware_concurrency() >= kAlertProcessors) limits_.alert = kAlert;
  const Speculation& speculation = options.speculation;
  if (speculation.branches > 1) {
    shape_ = {speculation.steps, speculation.branches, speculation.max_guesses};
    kept_ = shape_.choices();
  }
  FATHOM_CHECK(trees() || widest_ <= kGuessStride, "{} guesses in a row", widest_ - 1);
  if (options.speculation.source == Speculation::Source::kLookup) {
    lookup_ = make_lookup(options.max_running);
  }
}

GpuEngine::~GpuEngine() {
  if (board_ != nullptr) board_->leave(place_.group);
  queue_.close();
  if (launcher_.joinable()) launcher_.join();
  in_flight_.close();
  if (answerer_.joinable()) answerer_.join();
  // NCCL's last abort in a process waits for the other processes of the machine to abort theirs.
  if (others_ != nullptr) others_->end();
  // While this rank's memory is still there for their last ops.
  followers_.clear();
}

void GpuEngine::forward(const StepLayout& layout, const GuessLayout& guesses,
                        const std::vector<model::cuda::ExtendPass>& passes, int64_t extend_tokens,
                        int64_t places) {
  auto* base = static_cast<std::byte*>(device_input_.data());
  auto* ids = reinterpret_cast<int32_t*>(base + layout.ids);
  const auto* slots = reinterpret_cast<const int32_t*>(base + layout.slots);
  resolve_tokens(*stream_, ids, slots, tables_.last_tokens,
                 reinterpret_cast<const int32_t*>(base + guesses.guesses), guesses.rows, layout.tokens);
  model::cuda::GpuBatch batch;
  batch.view.tokens = layout.tokens;
  batch.view.positions = reinterpret_cast<const int32_t*>(base + layout.positions);
  batch.view.places = reinterpret_cast<const int64_t*>(base + layout.places);
  batch.view.slots = slots;
  batch.view.block_tables = tables_.block_tables;
  batch.view.table_stride = tables_.stride;
  batch.token_ids = ids;
  batch.most_places = tables_.most_places;
  batch.extend_tokens = extend_tokens;
  batch.passes = passes;
  batch.logit_rows = reinterpret_cast<const int32_t*>(base + layout.rows);
  batch.logit_count = layout.logit_rows;
  batch.cache = &cache_;
  batch.group_tokens = places;
  if (trees() && width_ > 1) {
    batch.branches = {reinterpret_cast<const int32_t*>(base + guesses.tail_starts), trees_.tails,
                      trees_.tail_stride()};
  }
  if (hands_back_later()) batch.hand_back = chosen_;
  model_->forward(*stream_, batch);
}

std::optional<DeviceClock> GpuEngine::device_clock() const {
  const std::lock_guard lock(clock_mutex_);
  return clock_;
}

// After a step with guesses the GPU waits for the next one's plan: asleep, the thread would be told of it
// tens of microseconds late.
std::optional<GpuEngine::Work> GpuEngine::next_work(bool alert) {
  if (alert && limits_.alert.count() > 0) {
    const auto end = std::chrono::steady_clock::now() + limits_.alert;
    while (!queue_.closed() && std::chrono::steady_clock::now() < end) {
      if (auto work = queue_.try_pop()) return work;
    }
  }
  return queue_.pop();
}

void GpuEngine::launch_steps() {
  // The current GPU is a thread's own.
  const auto opened = device::cuda::open_gpu(stream_->gpu().index);
  FATHOM_CHECK(opened.ok(), "{}", opened.error().message);
  bool alert = false;
  while (auto work = next_work(alert)) {
    if (work->idle) {
      take_idle_passes();
      continue;
    }
    const size_t index = *free_.pop();
    Frame& frame = frames_[index];
    const int64_t start_ns = steady_clock().now_ns();
    frame.promise = std::move(work->promise);
    frame.result = {};
    frame.result.step = work->plan.step;
    frame.choices.clear();
    frame.others = std::move(work->others);
    found_ = std::move(work->found);
    eager_ = work->eager;
    wait_for_notes();
    stream_->set_trace(work->trace);
    const device::cuda::Range range(fmt::format("step {}", work->plan.step).c_str());
    frame.status = queue_step(work->plan, frame);
    stream_->set_trace(nullptr);
    stream_->record(frame.done);
    if (frame.status.ok()) frame.status = stream_->status();
    if (!frame.status.ok()) {
      frame.status = frame.status.error().with_context(fmt::format(
          "step {} ({} rows, {} tokens)", work->plan.step, work->plan.rows.size(), input_.ids.size()));
    }
    frame.status = with_group(std::move(frame.status));
    if (finds_masks() && found_ != nullptr && !found_->given()) found_->give({});
    frame.rows = static_cast<int64_t>(work->plan.rows.size());
    frame.tokens = static_cast<int64_t>(input_.ids.size());
    if (trace_->wanted()) {
      trace_->add(StepTrace::Track::kHost, work->plan.step, frame.rows, frame.tokens,
                  static_cast<double>(start_ns) * 1e-3, seconds_since(start_ns) * 1e6);
    }
    alert = frame.alert;
    in_flight_.push(size_t{index});
  }
}

void GpuEngine::wait_for_notes() {
  if (awaited_ || widest_ == 1) return;
  std::unique_lock lock(notes_mutex_);
  noted_.wait(lock, [this] { return not_noted_ == 0; });
  ++not_noted_;
}

Result<void> GpuEngine::wait_for(const Frame& frame) const {
  if (group_ == nullptr || !group_->spans_processes())
    return frame.alert ? frame.done.wait_alert(kAlert) : frame.done.wait();
  const auto start = std::chrono::steady_clock::now();
  while (true) {
    FATHOM_ASSIGN(const bool done, frame.done.is_done());
    if (done) return {};
    const auto waited = std::chrono::steady_clock::now() - start;
    if (waited > (queue_.closed() ? std::min(timeout_, kFarewell) : timeout_)) {
      return error(ErrorCode::kDeadlineExceeded, "its GPU waited {:.1f} s for those of other nodes",
                   std::chrono::duration<double>(timeout_).count());
    }
    if (!frame.alert || waited > kAlert) std::this_thread::sleep_for(kBetweenLooks);
  }
}

void GpuEngine::answer_steps() {
  const auto opened = device::cuda::open_gpu(stream_->gpu().index);
  FATHOM_CHECK(opened.ok(), "{}", opened.error().message);
  // The frame of the step before stays taken: its end is when the GPU began to wait for this one.
  std::optional<size_t> last;
  while (const auto index = in_flight_.pop()) {
    Frame& frame = frames_[*index];
    if (frame.status.ok()) {
      const auto ended = wait_for(frame);
      if (!ended.ok()) frame.status = ended.error().with_context(fmt::format("step {}", frame.result.step));
      frame.status = with_group(std::move(frame.status));
    }
    auto promise = std::move(frame.promise);
    const bool idle = std::exchange(frame.idle, false);
    tell_masks(frame);
    if (frame.status.ok()) note_outputs(frame);
    if (!idle && !awaited_ && widest_ > 1) {
      const std::lock_guard lock(notes_mutex_);
      --not_noted_;
      noted_.notify_all();
    }
    Result<StepResult> answer = answer_of(frame);
    answer = agreed(std::move(answer), frame.others);
    // First, so that whoever gets the answer is known to be between two steps. Of other nodes' leaders node 0
    // knows.
    if (board_ != nullptr && finds_masks() && !idle) board_->answered(place_.group);
    const bool timed = frame.status.ok();
    if (!frame.alert && timed) count_time(frame, last ? &frames_[*last] : nullptr);
    if (!idle) promise.set_value(std::move(answer));
    // The next step waits for nothing but the answer.
    if (frame.alert && timed) count_time(frame, last ? &frames_[*last] : nullptr);
    if (last) free_.push(size_t{*last});
    last = *index;
  }
}

// What a row chose.
std::vector<int32_t> GpuEngine::tokens_of(const Frame& frame, size_t choice) {
  std::vector<int32_t> tokens;
  for (int64_t position = 0; position < frame.positions; ++position) {
    const int32_t token = frame.output.token(position * frame.stride + static_cast<int64_t>(choice)).token;
    if (token < 0) break;
    tokens.push_back(token);
  }
  return tokens;
}

// The next masks can be looked for from here on.
void GpuEngine::tell_masks(const Frame& frame) {
  for (size_t i = 0; i < frame.choices.size(); ++i) {
    const auto& masks = frame.choices[i].masks.sequence;
    if (masks == nullptr) continue;
    if (frame.status.ok()) {
      masks_.accept(masks, tokens_of(frame, i));
    } else {
      masks_.abandon(masks);
    }
  }
}

Result<StepResult> GpuEngine::answer_of(Frame& frame) {
  FATHOM_TRY(frame.status);
  for (size_t i = 0; i < frame.choices.size(); ++i) {
    const RowChoice& choice = frame.choices[i];
    RowResult& result = frame.result.rows[choice.row];
    for (int64_t position = 0; position < frame.positions; ++position) {
      const int64_t at = position * frame.stride + static_cast<int64_t>(i);
      TokenOutput output = frame.output.token(at);
      if (output.token < 0) break;
      if (choice.logprobs.output) output = frame.output.described(at, output.token, choice.logprobs);
      result.outputs.push_back(std::move(output));
    }
    result.drafted = choice.drafts;
    note_failure(choice.masks, &result);
  }
  return std::move(frame.result);
}

void GpuEngine::count_time(const Frame& frame, const Frame* before) {
  const auto busy = frame.done.seconds_since(frame.begun);
  const auto idle = before != nullptr ? frame.begun.seconds_since(before->done) : Result<double>(0.0);
  if (const auto start = frame.begun.seconds_since(origin_); trace_->wanted() && start.ok() && busy.ok()) {
    trace_->add(StepTrace::Track::kDevice, frame.result.step, frame.rows, frame.tokens,
                origin_us_ + *start * 1e6, *busy * 1e6);
  }
  const std::lock_guard lock(clock_mutex_);
  if (busy.ok()) clock_.busy += *busy;
  if (idle.ok()) clock_.idle += *idle;
}

Result<void> GpuEngine::queue_step(BatchPlan& plan, Frame& frame) {
  FATHOM_TRY(stream_->status());
  FATHOM_TRY(with_group({}));
  input_.clear();
  guesses_.clear();
  FATHOM_TRY(open_slots(plan));
  const PassBoard::Want want = plan_guesses(plan);
  pass_ = agree(want);
  width_ = pass_.width;
  FATHOM_TRY(count_pass());
  lay_out(plan);
  tables_.most_places = bound_of(plan);
  catch_up_.clear();
  if (drafts_layer() && width_ == 1) lay_out_catch_up();
  needed_ = 0;
  for (const GuessInput::Row& row : guesses_.rows)
    needed_ = std::max(needed_, slots_[static_cast<size_t>(row.slot)].pass);
  frame.result.rows.resize(plan.rows.size());
  LogprobShape shape;
  bool describes = false;
  for (size_t r = 0; r < plan.rows.size(); ++r) frame.result.rows[r].slot = plan.rows[r].slot;
  for (const size_t row : input_.sampling) {
    Slot& slot = slots_[static_cast<size_t>(plan.rows[row].slot)];
    const LogprobParams& params = slot.logprobs;
    frame.choices.push_back({.row = row,
                             .logprobs = chooses() ? params : LogprobParams{},
                             .masks = {.sequence = slot.masks, .chosen = slot.chosen}});
    ++slot.chosen;
    slot.pass = passes_;
    if (frame.choices.back().logprobs.output) {
      describes = true;
      shape.widen(params);
    }
  }
  for (const GuessInput::Row& row : guesses_.rows) {
    RowChoice& choice = frame.choices[static_cast<size_t>(row.sampling)];
    choice.drafts = trees() ? shape_.guesses_of(row.drafts) : row.drafts;
    choice.verifies = want.width > 1;
  }
  frame.alert = want.width > 1;
  if (drafts_layer()) lay_out_named(plan);
  FATHOM_TRY(queue_forward(frame));
  const int64_t rows = input_.sampling.empty() ? 0 : frame.stride * frame.positions;
  if (rows > 0) frame.output.bring_tokens(*stream_, device_tokens_, rows);
  if (describes) {
    int32_t* ids = frame.output.ids();
    for (int64_t i = 0; i < rows; ++i) {
      const auto choice = static_cast<size_t>(i % frame.stride);
      if (choice >= frame.choices.size()) continue;  // padding
      const auto& wanted = frame.choices[choice].logprobs.token_ids;
      for (int32_t j = 0; j < shape.requested; ++j) {
        ids[i * shape.requested + j] =
            static_cast<size_t>(j) < wanted.size() ? wanted[static_cast<size_t>(j)] : -1;
      }
    }
    describe({.logits = model_->last_logits(),
              .rows = rows,
              .logit_rows = trees() && width_ > 1 ? trees_.logit_rows : nullptr,
              .tokens = device_tokens_},
             shape, frame.output);
  }
  // After the choice: further logits take the place of the step's.
  for (size_t r = 0; r < plan.rows.size(); ++r) {
    if (plan.rows[r].prompt_logprob_start >= 0 && chooses()) {
      FATHOM_TRY(report_prompt(plan.rows[r], input_.first[r], &frame.result.rows[r]));
    }
  }
  if (drafts_layer()) run_follow(named_);
  // Of other groups' guesses a row has one token all the same.
  if (want.width == 1) {
    for (const GuessInput::Row& row : guesses_.rows) {
      Slot& slot = slots_[static_cast<size_t>(row.slot)];
      slot.behind = 1;
      slot.recent.clear();
    }
  }
  return stream_->status();
}

PassBoard::Pass GpuEngine::agree(const PassBoard::Want& want) {
  if (board_ == nullptr) return PassBoard::of({&want, 1});
  return board_->agree(place_.group, member_, want,
                       [this](const PassBoard::Pass& idle) { run_idle_pass(idle); });
}

int64_t GpuEngine::graph_size(int64_t rows) const {
  const auto found = std::lower_bound(graph_rows_.begin(), graph_rows_.end(), rows);
  return found == graph_rows_.end() ? 0 : *found;
}

int64_t GpuEngine::bound_of(const BatchPlan& plan) const {
  if (brief_places_ == 0) return 0;
  int64_t most = 0;
  for (const BatchRow& row : plan.rows)
    most = std::max<int64_t>(most, row.start + std::max<int64_t>(row.num_tokens(), widest_));
  // The draft layer's passes go on from there.
  return most + widest_ <= brief_places_ ? brief_places_ : 0;
}

void GpuEngine::launch_graph(int64_t rows, GraphKind kind) {
  const bool brief = tables_.most_places > 0 && model_->brief_context(stream_->gpu(), rows * width_) > 0;
  graphs_.at({rows, width_, kind, brief}).launch(*stream_);
}

Result<void> GpuEngine::queue_forward(Frame& frame) {
  const int64_t graph = pass_.graph_rows;
  const int64_t rows = graph > 0 ? graph : static_cast<int64_t>(input_.sampling.size());
  const int64_t tokens = graph > 0 ? graph * width_ : static_cast<int64_t>(input_.ids.size());
  frame.stride = rows;
  frame.positions = choices();
  lay_out_rows(rows, tokens);
  StepLayout layout(tokens, rows * width_);
  const GuessLayout guesses(guess_sizes(rows, tokens), layout.fixed_bytes);
  layout.fixed_bytes = guesses.end;
  auto passes = model::cuda::plan_passes(input_.extend_rows);
  FATHOM_CHECK_LE(static_cast<size_t>(input_.bytes(layout, passes)), frame.input.size());
  auto* device = static_cast<std::byte*>(device_input_.data());
  auto* pinned = static_cast<std::byte*>(frame.input.data());
  const SlotUpdate* updates = nullptr;
  int64_t bytes = input_.write(layout, pinned, device, passes, &updates);
  guesses_.write(guesses, pinned);
  if (drafts_layer()) {
    bytes = catch_up_.write(pinned, bytes);
    bytes = named_.write(pinned, bytes);
  }
  FATHOM_CHECK_LE(static_cast<size_t>(bytes), frame.input.size());
  stream_->record(frame.begun);
  device::cuda::copy_pinned(*stream_, device, pinned, static_cast<size_t>(bytes));
  // The tokens that rows go on from, where they were chosen too late for the last pass.
  if (hands_back_later() && needed_ > handed_back_) model_->hand_back(*stream_, chosen_);
  handed_back_ = passes_ - 1;
  apply_updates(*stream_, tables_, updates, static_cast<int64_t>(input_.updates.size()));
  if (drafts_layer()) run_follow(catch_up_);
  const bool draws = sampler_->draws(input_.row_slots);
  const bool masked =
      chooses() && std::any_of(input_.row_slots.begin(), input_.row_slots.end(),
                               [&](int32_t slot) { return slots_[static_cast<size_t>(slot)].constrained; });
  if (graph > 0 && !masked) {
    launch_graph(graph, draws ? GraphKind::kDraws : GraphKind::kGreedy);
    return stream_->status();
  }
  const bool drafts = drafts_layer() && (width_ > 1 || !guesses_.rows.empty());
  const bool guessed = drafts && width_ > 1;
  if (drafts && graph > 0) launch_graph(graph, GraphKind::kDraft);
  if (drafts && graph == 0) draft(layout, guesses, draws, pass_.rows);
  if (guessed && masked) bring_guesses(frame, guesses);
  if (graph > 0) {
    launch_graph(graph, GraphKind::kForward);
  } else {
    forward(layout, guesses, passes, input_.extend_tokens, pass_.places);
  }
  // The GPU computes while the host waits.
  if (masked) FATHOM_TRY(send_masks(frame, guessed));
  choose(layout, guesses, draws, masked);
  return stream_->status();
}

void GpuEngine::describe(sample::cuda::LogprobArgs args, const LogprobShape& shape, StepOutput& output) {
  stream_->copy(device_logprobs_.ids, output.ids(),
                static_cast<size_t>(args.rows * shape.requested) * sizeof(int32_t));
  args.top = shape.top;
  args.requested_ids = shape.requested;
  args.requested = device_logprobs_.ids;
  args.token_logprobs = device_logprobs_.token_logprobs;
  args.top_tokens = device_logprobs_.top_tokens;
  args.top_logprobs = device_logprobs_.top_logprobs;
  args.requested_logprobs = device_logprobs_.requested_logprobs;
  sampler_->logprobs(args);
  output.bring_logprobs(*stream_, device_logprobs_, args.rows, shape);
}

Result<void> GpuEngine::report_prompt(const BatchRow& row, int32_t first, RowResult* result) {
  const LogprobParams& params = slots_[static_cast<size_t>(row.slot)].logprobs;
  const int32_t count = row.num_tokens();
  const int32_t begin = std::max(row.start + 1, row.prompt_logprob_start);
  const int32_t end = row.start + count + (row.next_prompt_token >= 0 ? 1 : 0);  // exclusive
  const int32_t piece = limits_.max_slots * kept_;                               // what there is room for
  LogprobShape shape;
  shape.widen(params);
  StepOutput& output = prompt_output_;
  for (int32_t from = begin; from < end; from += piece) {
    const int32_t size = std::min(piece, end - from);
    for (int32_t i = 0; i < size; ++i) {
      const int32_t inside = from + i - row.start;
      output.row_ids()[i] = first + inside - 1;
      output.row_tokens()[i] =
          inside < count ? row.tokens[static_cast<size_t>(inside)] : row.next_prompt_token;
      for (int32_t j = 0; j < shape.requested; ++j)
        output.ids()[i * shape.requested + j] = params.token_ids[static_cast<size_t>(j)];
    }
    const auto bytes = static_cast<size_t>(size) * sizeof(int32_t);
    stream_->copy(device_logprobs_.rows, output.row_ids(), bytes);
    stream_->copy(device_logprobs_.tokens, output.row_tokens(), bytes);
    describe({.logits = model_->logits(*stream_, device_logprobs_.rows, size),
              .rows = size,
              .tokens = device_logprobs_.tokens},
             shape, output);
    FATHOM_TRY(stream_->synchronize());
    for (int32_t i = 0; i < size; ++i)
      result->prompt_logprobs.push_back(output.described(i, output.row_tokens()[i], params));
  }
  return {};
}

}  // namespace fathom::engine::cuda

#include "engine/far_group.h"

#include <utility>

#include "base/thread_start.h"

namespace fathom::engine {
namespace {

// It computes nothing that a trace could show.
EngineOptions without_trace(EngineOptions options) {
  options.trace_file.clear();
  return options;
}

}  // namespace

FarGroup::FarGroup(const EngineOptions& options, int group, const EngineReport& report,
                   const ExecutorLimits& limits, std::shared_ptr<PassBoard> board,
                   std::shared_ptr<OtherNodes> others)
    : Engine(without_trace(options), 1, {}),
      group_(group),
      board_(std::move(board)),
      others_(std::move(others)),
      masks_(options.config.vocab_size),
      slots_(static_cast<size_t>(options.max_running)) {
  report_ = report;
  limits_ = limits;
  worker_ = std::thread([this] {
    begin_thread("far group");
    work();
  });
}

FarGroup::~FarGroup() {
  others_->forget(group_);
  fail(error(ErrorCode::kUnavailable, "the engine has ended"));
  board_->leave(group_);
  asked_.close();
  worker_.join();
}

std::future<Result<StepResult>> FarGroup::step(BatchPlan plan) {
  // Under the lock, so that the node is told of steps in their order here.
  const std::lock_guard lock(mutex_);
  Step step;
  auto future = step.promise.get_future();
  if (failure_) {
    step.promise.set_value(*failure_);
    return future;
  }
  step.step = plan.step;
  for (const auto& open : plan.open) slots_[static_cast<size_t>(open.slot)] = masks_.open(open.init);
  for (const BatchRow& row : plan.rows) {
    const Sequence& masks = slots_[static_cast<size_t>(row.slot)];
    if (row.sample && masks != nullptr) step.masks.emplace(row.slot, masks);
  }
  steps_.push_back(std::move(step));
  board_->given(group_);
  others_->step(group_, plan, false);
  return future;
}

std::optional<DeviceClock> FarGroup::device_clock() const {
  const std::lock_guard lock(mutex_);
  return clock_;
}

void FarGroup::take(LeaderMessage message) {
  if (message.want) {
    asked_.push(*message.want);
  } else if (message.question) {
    asked_.push(std::move(*message.question));
  } else {
    answer(std::move(*message.answer));
  }
}

// The leader asks one after the other.
void FarGroup::work() {
  while (const auto asked = asked_.pop()) {
    if (const auto* want = std::get_if<PassBoard::Want>(&*asked)) {
      board_->want_of(group_, *want);
    } else {
      find(std::get<MaskQuestion>(*asked));
    }
  }
}

FarGroup::Step* FarGroup::step_of(uint64_t step) {
  for (Step& one : steps_) {
    if (one.step == step) return &one;
  }
  return nullptr;
}

void FarGroup::find(const MaskQuestion& question) {
  std::vector<ChoiceMasks> choices(static_cast<size_t>(question.choices));
  std::vector<ChoiceMasks*> pointers;
  for (ChoiceMasks& choice : choices) pointers.push_back(&choice);
  {
    const std::lock_guard lock(mutex_);
    const Step* step = step_of(question.step);
    if (step == nullptr) return;  // it has failed
    for (const auto& masked : question.masked) {
      ChoiceMasks& choice = choices[static_cast<size_t>(masked.row)];
      const auto found = step->masks.find(masked.slot);
      if (found != step->masks.end()) choice.sequence = found->second;
      choice.chosen = masked.chosen;
    }
  }
  const auto rows = find_masks(masks_, question.shape, pointers, question.guessed);
  {
    const std::lock_guard lock(mutex_);
    Step* step = step_of(question.step);
    if (step == nullptr) return;
    for (const auto& masked : question.masked)
      step->choices[masked.slot] = std::move(choices[static_cast<size_t>(masked.row)]);
  }
  others_->masks(group_, question.step, rows);
}

void FarGroup::answer(LeaderMessage::Answer message) {
  Step step;
  {
    const std::lock_guard lock(mutex_);
    if (steps_.empty()) return;  // it has failed
    step = std::move(steps_.front());
    steps_.pop_front();
    clock_ = message.clock;
  }
  Result<StepResult> result = std::move(message.result);
  if (result->step != step.step) {
    result = error(ErrorCode::kInternal, "an answer to step {} came for step {}", result->step, step.step);
  } else {
    for (RowResult& row : result->rows) {
      const auto masks = step.masks.find(row.slot);
      if (masks == step.masks.end()) continue;
      std::vector<int32_t> tokens;
      for (const TokenOutput& output : row.outputs) tokens.push_back(output.token);
      // The next masks can be looked for from here on.
      masks_.accept(masks->second, tokens);
      if (const auto choice = step.choices.find(row.slot); choice != step.choices.end())
        note_failure(choice->second, &row);
    }
  }
  // First, so that whoever gets the answer is known to be between two steps.
  board_->answered(group_);
  step.promise.set_value(std::move(result));
}

void FarGroup::fail(const Error& why) {
  std::deque<Step> steps;
  {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = why;
    steps.swap(steps_);
  }
  for (Step& step : steps) {
    for (auto& [slot, masks] : step.masks) masks_.abandon(masks);
    board_->answered(group_);
    step.promise.set_value(why);
  }
}

}  // namespace fathom::engine

#include "engine/cuda/pass_board.h"

#include <algorithm>
#include <utility>

namespace fathom::engine::cuda {
namespace {

// Between two steps an engine answers requests and gets its next plan. Others wait so long for it: to begin
// without it would cost it a whole pass.
constexpr std::chrono::microseconds kBetweenSteps{1000};

}  // namespace

void PassBoard::join(int group, std::function<void()> wake) {
  std::lock_guard lock(mutex_);
  groups_[static_cast<size_t>(group)].wake = std::move(wake);
}

void PassBoard::leave(int group) {
  std::lock_guard lock(mutex_);
  groups_[static_cast<size_t>(group)].wake = nullptr;
  ended_ = true;
  changed_.notify_all();
}

void PassBoard::given(int group) {
  std::lock_guard lock(mutex_);
  ++groups_[static_cast<size_t>(group)].steps;
}

void PassBoard::answered(int group) {
  std::lock_guard lock(mutex_);
  Group& mine = groups_[static_cast<size_t>(group)];
  --mine.steps;
  mine.step_end = std::chrono::steady_clock::now();
  changed_.notify_all();
}

PassBoard::Pass PassBoard::agree(int group, const Want& want,
                                 const std::function<void(const Pass&)>& run_idle) {
  std::unique_lock lock(mutex_);
  Group& mine = groups_[static_cast<size_t>(group)];
  while (const auto idle = take_idle_locked(group)) {
    lock.unlock();
    run_idle(*idle);
    lock.lock();
  }
  mine.wanted = want;
  changed_.notify_all();
  while (!mine.granted && !ended_) {
    const TimePoint ready = ready_at();
    if (ready <= std::chrono::steady_clock::now()) {
      begin();
    } else if (ready == TimePoint::max()) {
      changed_.wait(lock);
    } else {
      changed_.wait_until(lock, ready);
    }
  }
  mine.wanted.reset();
  const auto granted = std::exchange(mine.granted, std::nullopt);
  return granted ? *granted : Pass{want.graph_rows, std::max(want.graph_rows, want.tokens)};
}

std::optional<PassBoard::Pass> PassBoard::take_idle(int group) {
  std::lock_guard lock(mutex_);
  return take_idle_locked(group);
}

std::optional<PassBoard::Pass> PassBoard::take_idle_locked(int group) {
  auto& idle = groups_[static_cast<size_t>(group)].idle;
  if (idle.empty()) return std::nullopt;
  const Pass pass = idle.front();
  idle.erase(idle.begin());
  return pass;
}

PassBoard::TimePoint PassBoard::ready_at() const {
  TimePoint ready{};
  for (const Group& group : groups_) {
    if (group.wanted) continue;
    if (group.steps > 0) return TimePoint::max();
    if (group.step_end != TimePoint{}) ready = std::max(ready, group.step_end + kBetweenSteps);
  }
  return ready;
}

void PassBoard::begin() {
  Pass pass;
  bool graph = true;
  for (const Group& group : groups_) {
    if (!group.wanted) continue;
    pass.places = std::max(pass.places, group.wanted->tokens);
    pass.graph_rows = std::max(pass.graph_rows, group.wanted->graph_rows);
    graph = graph && group.wanted->graph_rows > 0;
  }
  if (graph) {
    pass.places = pass.graph_rows;
  } else {
    pass.graph_rows = 0;
  }
  for (Group& group : groups_) {
    if (group.wanted) {
      group.wanted.reset();
      group.granted = pass;
    } else {
      group.idle.push_back(pass);
      if (group.wake) group.wake();
    }
  }
  changed_.notify_all();
}

}  // namespace fathom::engine::cuda

#include "engine/pass_board.h"

#include <algorithm>
#include <utility>

namespace fathom::engine {

PassBoard::Pass PassBoard::of(std::span<const Want> wants) {
  Pass pass;
  bool graph = true;
  for (const Want& want : wants) {
    pass.width = std::max(pass.width, want.width);
    pass.rows = std::max(pass.rows, want.sampling);
    pass.graph_rows = std::max(pass.graph_rows, want.graph_rows);
    graph = graph && want.graph_rows > 0;
  }
  if (graph) {
    pass.rows = pass.graph_rows;
    pass.places = pass.graph_rows * pass.width;
    return pass;
  }
  pass.graph_rows = 0;
  for (const Want& want : wants) pass.places = std::max(pass.places, want.named + want.going_on * pass.width);
  return pass;
}

PassBoard::PassBoard(int groups, int members) : groups_(static_cast<size_t>(groups)) {
  for (Group& group : groups_) group.members.resize(static_cast<size_t>(members));
}

void PassBoard::join(int group, int member, std::function<void()> wake) {
  std::lock_guard lock(mutex_);
  at(group, member).wake = std::move(wake);
}

void PassBoard::leave(int group) {
  std::lock_guard lock(mutex_);
  for (Member& member : groups_[static_cast<size_t>(group)].members) member.wake = nullptr;
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

PassBoard::Pass PassBoard::agree(int group, int member, const Want& want,
                                 const std::function<void(const Pass&)>& run_idle) {
  std::unique_lock lock(mutex_);
  Group& mine = groups_[static_cast<size_t>(group)];
  Member& self = at(group, member);
  bool posted = member != 0;
  while (true) {
    if (!self.passes.empty()) {
      const Coming next = self.passes.front();
      self.passes.pop_front();
      if (!next.idle) return next.pass;
      lock.unlock();
      run_idle(next.pass);
      lock.lock();
      continue;
    }
    if (ended_) {
      if (member == 0) mine.wanted.reset();
      return of({&want, 1});
    }
    if (!posted && asks_) {
      posted = true;
      lock.unlock();
      asks_(group, want);
      lock.lock();
      continue;
    }
    if (!posted) {
      posted = true;
      mine.wanted = want;
      changed_.notify_all();
    }
    if (member == 0 && !asks_) {
      begin_or_wait(lock);
    } else {
      changed_.wait(lock);
    }
  }
}

void PassBoard::want_of(int group, const Want& want) {
  std::unique_lock lock(mutex_);
  Group& theirs = groups_[static_cast<size_t>(group)];
  theirs.wanted = want;
  changed_.notify_all();
  while (theirs.wanted && !ended_) begin_or_wait(lock);
}

void PassBoard::begin_or_wait(std::unique_lock<std::mutex>& lock) {
  const PassTurn::TimePoint ready = ready_at();
  if (ready <= std::chrono::steady_clock::now()) {
    begin();
  } else if (ready == PassTurn::TimePoint::max()) {
    changed_.wait(lock);
  } else {
    changed_.wait_until(lock, ready);
  }
}

std::optional<PassBoard::Pass> PassBoard::take_idle(int group, int member) {
  std::lock_guard lock(mutex_);
  Member& self = at(group, member);
  if (self.passes.empty() || !self.passes.front().idle) return std::nullopt;
  const Pass pass = self.passes.front().pass;
  self.passes.pop_front();
  return pass;
}

PassTurn::TimePoint PassBoard::ready_at() const {
  return pass_begins(groups_, [](const Group& group) {
    return PassTurn{group.wanted.has_value(), group.steps > 0, group.step_end};
  });
}

void PassBoard::begin() {
  std::vector<Want> wants;
  for (const Group& group : groups_) {
    if (group.wanted) wants.push_back(*group.wanted);
  }
  const Pass pass = of(wants);
  std::vector<bool> idle;
  for (Group& group : groups_) {
    idle.push_back(!group.wanted);
    group.wanted.reset();
  }
  if (told_) told_(pass, idle);
  hand_out(pass, idle);
}

void PassBoard::begun(const Pass& pass, const std::vector<bool>& idle) {
  const std::lock_guard lock(mutex_);
  hand_out(pass, idle);
}

void PassBoard::hand_out(const Pass& pass, const std::vector<bool>& idle) {
  for (size_t g = 0; g < groups_.size(); ++g) {
    for (Member& member : groups_[g].members) {
      if (!member.wake) continue;
      member.passes.push_back({pass, idle[g]});
      if (idle[g]) member.wake();
    }
  }
  changed_.notify_all();
}

}  // namespace fathom::engine

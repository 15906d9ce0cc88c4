// When groups of requests begin a pass that they compute together (Split::dp): one rule for threads of the
// host (rank_world.h) and for engines of GPUs (pass_board.h).
#pragma once

#include <algorithm>
#include <chrono>

namespace fathom::engine {

// Where a group stands.
struct PassTurn {
  using TimePoint = std::chrono::steady_clock::time_point;

  bool come = false;     // with what it wants
  bool in_step = false;  // it will come
  TimePoint step_end{};  // of its last step, if any
};

// Between two steps an engine answers requests and gets its next plan. Others wait so long for it: to begin
// without it would cost it a whole pass.
inline constexpr std::chrono::microseconds kBetweenSteps{1000};

// The time from which on a pass may begin, with those that have come; max(): while a group in a step has not.
// turn(group) gives the PassTurn.
template <class Groups, class Turn>
PassTurn::TimePoint pass_begins(const Groups& groups, const Turn& turn) {
  PassTurn::TimePoint begin{};
  for (const auto& group : groups) {
    const PassTurn where = turn(group);
    if (where.come) continue;
    if (where.in_step) return PassTurn::TimePoint::max();
    if (where.step_end != PassTurn::TimePoint{}) begin = std::max(begin, where.step_end + kBetweenSteps);
  }
  return begin;
}

}  // namespace fathom::engine

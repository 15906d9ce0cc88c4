// Where the engines of several groups of requests (Split::dp) agree on the passes that their GPUs compute
// together. Each has steps of its own, but experts need all of them at once, in the same order and with as
// many places for each: a pass begins when every group that is in a step has come with what it wants, and a
// group that is in none takes its part in the experts only. All passes of the model that a step is made of
// are agreed on at once, those of its draft layer too.
//
// A group's ranks each have an engine; member 0 leads, and its want is the group's. All members have the same
// passes.
//
// Thread safe.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "engine/pass_turn.h"

namespace fathom::engine::cuda {

class PassBoard {
 public:
  // A step's tokens: some that it names, and for each row that goes on from its last one as many as the step
  // is wide, 1 + guesses.
  struct Want {
    int64_t named = 0, going_on = 0;  // tokens, rows
    int64_t sampling = 0;             // rows
    int64_t graph_rows = 0;           // 0: a graph will not do
    int32_t width = 1;
  };
  // The same for all groups.
  struct Pass {
    int64_t graph_rows = 0;  // 0: without a graph
    int32_t width = 1;
    int64_t rows = 0;    // most that sample, of a group
    int64_t places = 0;  // for each group's tokens

    bool operator==(const Pass&) const = default;
  };

  // What groups that want these compute.
  static Pass of(std::span<const Want> wants);

  explicit PassBoard(int groups, int members = 1);

  // `wake` is called when a pass begins without the group, which must then take_idle(). It must not call the
  // board.
  void join(int group, int member, std::function<void()> wake);
  // The group takes no more passes, and nobody waits any more: what they want is theirs alone.
  void leave(int group);

  // A step was given to the group, and was answered: between the two others wait for it.
  void given(int group);
  void answered(int group);

  // Waits for the group's next pass. Those that began without it come first, each by run_idle.
  Pass agree(int group, int member, const Want& want, const std::function<void(const Pass&)>& run_idle);
  // The next pass that began without the group, unless one that it takes part in comes before.
  std::optional<Pass> take_idle(int group, int member);

 private:
  struct Coming {
    Pass pass;
    bool idle = false;
  };
  struct Member {
    std::function<void()> wake;
    std::deque<Coming> passes;
  };
  struct Group {
    std::vector<Member> members;
    std::optional<Want> wanted;
    int64_t steps = 0;  // given and not answered
    PassTurn::TimePoint step_end{};
  };

  Member& at(int group, int member) {
    return groups_[static_cast<size_t>(group)].members[static_cast<size_t>(member)];
  }
  PassTurn::TimePoint ready_at() const;
  void begin();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Group> groups_;
  bool ended_ = false;
};

}  // namespace fathom::engine::cuda

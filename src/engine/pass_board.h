// Where the engines of several groups of requests (Split::dp) agree on the passes that their GPUs compute
// together. Each has steps of its own, but experts need all of them at once, in the same order and with as
// many places for each: a pass begins when every group that is in a step has come with what it wants, and a
// group that is in none takes its part in the experts only. All passes of the model that a step is made of
// are agreed on at once, those of its draft layer too.
//
// A group's ranks each have an engine; member 0 leads, and its want is the group's. All members have the same
// passes.
//
// Over several nodes each has a board for the ranks that it has. Node 0's decides, and tells the others what
// began; what leaders on other nodes want comes to it (want_of), and theirs pass on what they hear (begun).
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

namespace fathom::engine {

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

  // A pass, and by group whether it begins without it.
  using Begun = std::function<void(const Pass&, const std::vector<bool>& idle)>;
  using Ask = std::function<void(int group, const Want&)>;

  // `members` of a group at most.
  explicit PassBoard(int groups, int members = 1);
  // Before any pass; neither may call the board. On node 0: who is told of each pass, one after another. On
  // another node: where its leaders' wants go.
  void tell(Begun told) { told_ = std::move(told); }
  void ask(Ask asks) { asks_ = std::move(asks); }

  // `wake` is called when a pass begins without the group, which must then take_idle(). It must not call the
  // board. Who has not joined has no passes.
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

  // On node 0: what a group wants whose leader is on another. Waits until its pass has begun.
  void want_of(int group, const Want& want);
  // On another node: what node 0's board tells.
  void begun(const Pass& pass, const std::vector<bool>& idle);

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
  // Begins the next pass, or waits until it may or something changes.
  void begin_or_wait(std::unique_lock<std::mutex>& lock);
  void begin();
  void hand_out(const Pass& pass, const std::vector<bool>& idle);

  Begun told_;
  Ask asks_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Group> groups_;
  bool ended_ = false;
};

}  // namespace fathom::engine

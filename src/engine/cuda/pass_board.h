// Where the engines of several groups of requests (Split::dp) agree on the passes that their GPUs compute
// together. Each has steps of its own, but experts need all of them at once, in the same order and with as
// many places for each: a pass begins when every group that is in a step has come with what it wants, and a
// group that is in none takes its part in the experts only.
//
// Thread safe.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

namespace fathom::engine::cuda {

class PassBoard {
 public:
  struct Want {
    int64_t tokens = 0;
    int64_t graph_rows = 0;  // 0: a graph will not do
  };
  struct Pass {
    int64_t graph_rows = 0;  // 0: without a graph
    int64_t places = 0;      // for each group's tokens
  };

  explicit PassBoard(int groups) : groups_(static_cast<size_t>(groups)) {}

  // `wake` is called when a pass begins without the group, which must then take_idle(). It must not call the
  // board.
  void join(int group, std::function<void()> wake);
  // The group takes no more passes, and nobody waits any more: what they want is theirs alone.
  void leave(int group);

  // A step was given to the group, and was answered: between the two others wait for it.
  void given(int group);
  void answered(int group);

  // Waits for the group's next pass. Those that began without it come first, each by run_idle.
  Pass agree(int group, const Want& want, const std::function<void(const Pass&)>& run_idle);
  // The next pass that began without the group.
  std::optional<Pass> take_idle(int group);

 private:
  using TimePoint = std::chrono::steady_clock::time_point;
  struct Group {
    std::function<void()> wake;
    std::optional<Want> wanted;
    std::optional<Pass> granted;
    std::vector<Pass> idle;
    int64_t steps = 0;     // given and not answered
    TimePoint step_end{};  // of the last one
  };

  std::optional<Pass> take_idle_locked(int group);
  // When the next pass may begin; max() while a group in a step has not come.
  TimePoint ready_at() const;
  void begin();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Group> groups_;
  bool ended_ = false;
};

}  // namespace fathom::engine::cuda

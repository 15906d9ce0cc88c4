// A group of requests whose leader is the GPU of another node, as node 0's scheduler sees it. The schedulers
// of all groups run on node 0. This engine sends its scheduler's plans to the leader's node (and, as every
// leader's, to all others), says on the board of passes what the leader wants, finds the masks of its
// requests, for what makes them is here, and gives back the answers as they come.
//
// So the group's node keeps no request: only what a plan says. The price is a trip over the network for a
// plan, one each way to agree on the pass, and one for the answer; all but the last while the GPUs compute
// the step before, unless steps guess, for those begin when the last one is answered.
#pragma once

#include <deque>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <variant>
#include <vector>

#include "base/queue.h"
#include "engine/engine.h"
#include "engine/other_nodes.h"
#include "engine/pass_board.h"

namespace fathom::engine {

class FarGroup final : public Engine, public LeaderListener {
 public:
  // `report` and `limits`: those of the other groups, whose ranks are alike.
  FarGroup(const EngineOptions& options, int group, const EngineReport& report, const ExecutorLimits& limits,
           std::shared_ptr<PassBoard> board, std::shared_ptr<OtherNodes> others);
  ~FarGroup() override;

  std::future<Result<StepResult>> step(BatchPlan plan) override;
  std::optional<DeviceClock> device_clock() const override;
  std::optional<int> asked_to_end() const override { return others_->asked_to_end(); }

  void take(LeaderMessage message) override;
  void fail(const Error& why) override;

 private:
  using Sequence = std::shared_ptr<sample::MaskWorkers::Sequence>;
  // Given, and not answered.
  struct Step {
    uint64_t step = 0;
    std::promise<Result<StepResult>> promise;
    std::map<int32_t, Sequence> masks;       // of its rows that choose, by slot
    std::map<int32_t, ChoiceMasks> choices;  // what was found, by slot
  };

  void work();
  void find(const MaskQuestion& question);
  void answer(LeaderMessage::Answer message);
  Step* step_of(uint64_t step);  // with mutex_ held

  const int group_;
  const std::shared_ptr<PassBoard> board_;
  const std::shared_ptr<OtherNodes> others_;
  sample::MaskWorkers masks_;
  mutable std::mutex mutex_;
  std::deque<Step> steps_;
  std::vector<Sequence> slots_;  // masks of what is in each, or none
  std::optional<Error> failure_;
  DeviceClock clock_;
  Queue<std::variant<PassBoard::Want, MaskQuestion>> asked_;
  std::thread worker_;
};

}  // namespace fathom::engine

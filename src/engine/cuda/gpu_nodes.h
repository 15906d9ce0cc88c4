// Engines of GPUs on several nodes. Node 0 has the schedulers: each node's engines are told every step
// (engine/plan_wire.h) of the groups of requests that their ranks are of, and queue the same work for their
// GPUs; these meet in the model (dist/cuda/nccl_group.h). The leader of a group is the engine of its first
// rank of the last stage. Where that is on another node than 0, a FarGroup stands for it there, and what the
// leader wants of the next pass, its questions for masks and its answers go back (engine/leader_wire.h).
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "dist/control.h"
#include "engine/cuda/gpu_engine.h"
#include "engine/far_group.h"
#include "engine/node.h"

namespace fathom::engine::cuda {

// What a process has of a model over several nodes.
struct NodeSeat {
  std::vector<std::unique_ptr<dist::cuda::GpuGroup>> groups;  // of its ranks
  // One of them: node 0 has the first.
  std::unique_ptr<dist::ControlHost> host;
  std::unique_ptr<dist::ControlGuest> guest;
};
// Meets the other nodes, and the GPUs theirs.
Result<NodeSeat> take_seat(const EngineOptions& options, const std::vector<int>& gpus);
// The node of each group's leader.
std::vector<int> leading_nodes(const EngineOptions& options);

// On another node: the way to node 0, of the leaders there. Thread safe. A failure stands in the state of the
// group.
class NodeZero {
 public:
  explicit NodeZero(std::shared_ptr<dist::ControlGuest> guest) : guest_(std::move(guest)) {}
  void tell(std::string_view message) {
    const std::lock_guard lock(mutex_);
    (void)guest_->send(message);
  }

 private:
  std::mutex mutex_;
  std::shared_ptr<dist::ControlGuest> guest_;
};

// Another node.
class GpuNode final : public Node {
 public:
  static Result<std::unique_ptr<Node>> start(const EngineOptions& options);
  ~GpuNode() override;
  Result<void> run() override;
  void ask_to_end() override { guest_->ask_to_end(); }

 private:
  // The leader of a group, with its followers here, and the thread that sends its answers.
  struct Led {
    std::unique_ptr<GpuEngine> leader;
    Queue<std::future<Result<StepResult>>> answers;
    std::thread answerer;
  };
  GpuNode() = default;
  void answer(int group, Led& led);
  void take_step(StepMessage step, std::shared_ptr<FoundMasks> found);

  int groups_ = 1;
  std::shared_ptr<dist::ControlGuest> guest_;
  std::shared_ptr<NodeZero> zero_;
  std::shared_ptr<PassBoard> board_;                   // where there are several groups
  std::vector<std::unique_ptr<GpuEngine>> following_;  // of leaders elsewhere
  std::map<int, Led> led_;                             // by group
  const GpuEngine* any_ = nullptr;                     // of them
};

}  // namespace fathom::engine::cuda

// Engines of GPUs on several nodes. Node 0 leads: it is given the plans, and tells each to the engines of the
// other nodes, which queue the same work for their GPUs; these meet in the model (dist/cuda/nccl_group.h).
// Nothing comes back but what the GPUs send each other, and that a node has failed.
//
// Requests are of one group (Split::dp is 1).
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <vector>

#include "dist/control.h"
#include "engine/cuda/gpu_engine.h"
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

// Node 0's end. Thread safe; what one call tells comes before what the next does.
class OtherNodes {
 public:
  explicit OtherNodes(std::unique_ptr<dist::ControlHost> host) : host_(std::move(host)) {}

  // A failure stands in the group's state.
  void step(const BatchPlan& plan, bool eager);
  void masks(uint64_t step, const std::vector<MaskRow>& rows);
  std::optional<int> asked_to_end() const { return host_->asked_to_end(); }

 private:
  void tell(std::string_view message);
  std::mutex mutex_;
  std::unique_ptr<dist::ControlHost> host_;
};

// Another node.
class GpuNode final : public Node {
 public:
  static Result<std::unique_ptr<Node>> start(const EngineOptions& options);
  Result<void> run() override;
  void ask_to_end() override { guest_->ask_to_end(); }

 private:
  GpuNode() = default;
  std::unique_ptr<dist::ControlGuest> guest_;
  std::vector<std::unique_ptr<GpuEngine>> engines_;
};

}  // namespace fathom::engine::cuda

// Node 0's end of what it and the other nodes' GPUs say to each other (cuda/gpu_nodes.h is theirs): plans,
// masks and passes go out (plan_wire.h), and where another node leads a group of requests, what that leader
// says comes in (leader_wire.h).
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <thread>
#include <vector>

#include "dist/control.h"
#include "engine/leader_wire.h"

namespace fathom::engine {

// Who is told what leaders on other nodes say; by a thread of OtherNodes, which must not wait for another
// message.
class LeaderListener {
 public:
  virtual ~LeaderListener() = default;
  virtual void take(LeaderMessage message) = 0;
  // No more will come.
  virtual void fail(const Error& why) = 0;
};

// Thread safe; what one call tells comes before what the next does. A failure stands in the state of the
// nodes' groups.
class OtherNodes {
 public:
  explicit OtherNodes(std::unique_ptr<dist::ControlHost> host) : host_(std::move(host)) {}
  // With end().
  ~OtherNodes();
  OtherNodes(const OtherNodes&) = delete;
  OtherNodes& operator=(const OtherNodes&) = delete;

  void step(int group, const BatchPlan& plan, bool eager);
  void masks(int group, uint64_t step, const std::vector<MaskRow>& rows);
  void pass(const PassBoard::Pass& pass, const std::vector<bool>& idle);
  // Ends the other nodes in good order: nobody asks for a step any more.
  void end();
  std::optional<int> asked_to_end() const { return host_->asked_to_end(); }

  // Once, before the first step: `listeners` [group], null where node 0 leads; nodes[group] leads it. A
  // listener is told until it forgets.
  void listen(std::vector<LeaderListener*> listeners, const std::vector<int>& nodes,
              const ExecutorLimits& limits);
  void forget(int group);

 private:
  void tell(std::string_view message);
  void read(int node, const std::vector<int>& nodes, const ExecutorLimits& limits);

  std::mutex mutex_;  // of sending
  std::unique_ptr<dist::ControlHost> host_;
  std::mutex listeners_mutex_;
  std::vector<LeaderListener*> listeners_;
  std::vector<std::thread> readers_;
};

}  // namespace fathom::engine

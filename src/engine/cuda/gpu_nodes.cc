#include "engine/cuda/gpu_nodes.h"

#include <deque>

#include "dist/cuda/nccl_group.h"
#include "dist/rendezvous.h"
#include "dist/socket_group.h"

namespace fathom::engine::cuda {
namespace {

// Many more than are ever out: one for each stage, and one ahead. Masks come while their step is out, or
// never.
constexpr size_t kStepsKept = 512;

}  // namespace

Result<NodeSeat> take_seat(const EngineOptions& options, const std::vector<int>& gpus) {
  dist::RendezvousOptions nodes = options.nodes;
  nodes.ranks = options.local_ranks();
  nodes.timeout = options.dist_timeout;
  FATHOM_ASSIGN(dist::Wiring wiring, dist::meet_nodes(nodes));
  auto hosts = dist::make_socket_groups(wiring, options.dist_timeout);
  NodeSeat seat;
  if (nodes.node == 0) {
    seat.host = std::make_unique<dist::ControlHost>(wiring, hosts.world);
  } else {
    seat.guest = std::make_unique<dist::ControlGuest>(wiring, hosts.world);
  }
  dist::cuda::GpuGroupOptions wanted;
  wanted.gpus = gpus;
  wanted.timeout = options.dist_timeout;
  // Node 0 leads, and so has the stage that chooses.
  const int shift = (options.split.pp - 1) * options.split.tp;
  FATHOM_ASSIGN(seat.groups, dist::cuda::create_over_nodes(wanted, std::move(hosts.ranks), shift));
  return seat;
}

void OtherNodes::step(const BatchPlan& plan, bool eager) {
  tell(encode_step(plan, eager));
}

void OtherNodes::masks(uint64_t step, const std::vector<MaskRow>& rows) {
  tell(encode_masks(step, rows));
}

void OtherNodes::tell(std::string_view message) {
  const std::lock_guard lock(mutex_);
  (void)host_->send(message);
}

Result<std::unique_ptr<Node>> GpuNode::start(const EngineOptions& options) {
  std::unique_ptr<GpuNode> node(new GpuNode());
  FATHOM_ASSIGN(auto ranks, GpuEngine::start_over_nodes(options));
  node->guest_ = std::move(ranks.guest);
  node->engines_ = std::move(ranks.engines);
  node->report_ = node->engines_.front()->report();
  return std::unique_ptr<Node>(std::move(node));
}

Result<void> GpuNode::run() {
  const ExecutorLimits& limits = engines_.front()->limits();
  struct Step {
    uint64_t step;
    std::shared_ptr<FoundMasks> found;
  };
  std::deque<Step> steps;  // that may still get masks
  const auto give_up = [&] {
    for (auto& [step, found] : steps) {
      if (!found->given()) found->give({});
    }
  };
  while (true) {
    auto message = guest_->receive();
    if (!message.ok() || !message->has_value()) {
      give_up();
      if (!message.ok()) return message.error();
      return engines_.front()->world_state();
    }
    auto told = parse_engine_message(**message, limits);
    if (!told.ok()) {
      give_up();
      engines_.front()->fail(told.error());
      return told.error();
    }
    if (told->masks) {
      for (auto& [step, found] : steps) {
        if (step == told->masks->step && !found->given()) found->give(std::move(told->masks->rows));
      }
      continue;
    }
    auto found = std::make_shared<FoundMasks>();
    for (auto& engine : engines_) engine->follow(told->step->plan, told->step->eager, found);
    steps.push_back({told->step->plan.step, std::move(found)});
    while (steps.size() > kStepsKept) steps.pop_front();
  }
}

}  // namespace fathom::engine::cuda

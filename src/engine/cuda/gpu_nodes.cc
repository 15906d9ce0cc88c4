#include "engine/cuda/gpu_nodes.h"

#include <deque>

#include "base/thread_start.h"
#include "dist/cuda/nccl_group.h"
#include "dist/rendezvous.h"
#include "dist/socket_group.h"

namespace fathom::engine::cuda {
namespace {

// Many more than are ever out: of each group one for each stage, and one ahead. Masks come while their step
// is out, or never.
constexpr size_t kStepsKept = 4096;

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

std::vector<int> leading_nodes(const EngineOptions& options) {
  std::vector<int> nodes;
  // The last stage comes first on the host.
  for (int group = 0; group < options.split.dp; ++group)
    nodes.push_back(group * options.split.attention_ranks() / options.local_ranks());
  return nodes;
}

Result<std::unique_ptr<Node>> GpuNode::start(const EngineOptions& options) {
  std::unique_ptr<GpuNode> node(new GpuNode());
  FATHOM_ASSIGN(auto ranks, GpuEngine::start_over_nodes(options));
  const model::Split& split = options.split;
  node->groups_ = split.dp;
  node->guest_ = std::move(ranks.guest);
  node->zero_ = std::make_shared<NodeZero>(node->guest_);
  node->report_ = ranks.engines.front()->report();
  node->any_ = ranks.engines.front().get();
  if (split.dp > 1) {
    node->board_ = std::make_shared<PassBoard>(split.dp, split.world() / split.dp);
    node->board_->ask([zero = node->zero_](int group, const PassBoard::Want& want) {
      zero->tell(encode_want(group, want));
    });
  }
  std::map<int, int> members;
  for (auto& engine : ranks.engines) {
    const int group = engine->group();
    if (node->board_ != nullptr) engine->join(node->board_, engine->leads() ? 0 : ++members[group]);
    if (engine->leads()) {
      engine->ask_for_masks(node->zero_);
      node->led_[group].leader = std::move(engine);
    } else if (const auto led = node->led_.find(group); led != node->led_.end()) {
      led->second.leader->lead(std::move(engine));  // a leader is the first of its group's ranks here
    } else {
      node->following_.push_back(std::move(engine));
    }
  }
  for (auto& [group, led] : node->led_)
    led.answerer = std::thread([node = node.get(), group, &led] {
      begin_thread("node answerer");
      node->answer(group, led);
    });
  return std::unique_ptr<Node>(std::move(node));
}

GpuNode::~GpuNode() {
  for (auto& [group, led] : led_) led.leader.reset();  // its steps end
  for (auto& [group, led] : led_) {
    led.answers.close();
    if (led.answerer.joinable()) led.answerer.join();
  }
}

void GpuNode::answer(int group, Led& led) {
  while (auto next = led.answers.pop()) {
    const Result<StepResult> result = next->get();
    if (result.ok()) {
      zero_->tell(encode_answer(group, *result, led.leader->device_clock().value_or(DeviceClock())));
    } else {
      led.leader->fail(result.error());
    }
  }
}

void GpuNode::take_step(StepMessage step, std::shared_ptr<FoundMasks> found) {
  for (auto& engine : following_) {
    if (engine->group() == step.group) (void)engine->follow(step.plan, step.eager, found);
  }
  if (const auto led = led_.find(step.group); led != led_.end()) {
    led->second.answers.push(led->second.leader->follow(std::move(step.plan), step.eager, std::move(found)));
  }
}

Result<void> GpuNode::run() {
  const ExecutorLimits& limits = any_->limits();
  struct Step {
    int group;
    uint64_t step;
    std::shared_ptr<FoundMasks> found;
  };
  std::deque<Step> steps;  // that may still get masks
  const auto give_up = [&] {
    for (auto& one : steps) {
      if (!one.found->given()) one.found->give({});
    }
  };
  while (true) {
    auto message = guest_->receive();
    if (!message.ok() || !message->has_value()) {
      give_up();
      if (!message.ok()) return message.error();
      return any_->world_state();
    }
    auto told = parse_engine_message(**message, groups_, limits);
    if (!told.ok()) {
      give_up();
      any_->fail(told.error());
      return told.error();
    }
    if (told->pass) {
      if (board_ != nullptr) board_->begun(told->pass->pass, told->pass->idle);
    } else if (told->masks) {
      for (auto& [group, step, found] : steps) {
        if (group == told->masks->group && step == told->masks->step && !found->given())
          found->give(std::move(told->masks->rows));
      }
    } else {
      auto found = std::make_shared<FoundMasks>();
      steps.push_back({told->step->group, told->step->plan.step, found});
      take_step(std::move(*told->step), std::move(found));
      while (steps.size() > kStepsKept) steps.pop_front();
    }
  }
}

}  // namespace fathom::engine::cuda

#include "engine/node.h"

#include "base/clock.h"
#include "engine/gpu.h"
#include "engine/rank_world.h"

namespace fathom::engine {
namespace {

class CpuNode final : public Node {
 public:
  static Result<std::unique_ptr<Node>> start(const EngineOptions& options) {
    const int64_t start_ns = steady_clock().now_ns();
    const auto available = static_cast<int64_t>(device::available_memory());
    EngineOptions complete = options;
    complete.load = complete_load(options);
    auto node = std::make_unique<CpuNode>();
    FATHOM_ASSIGN(node->world_, RankWorld::start(complete));
    RankWorld& world = *node->world_;
    EngineReport& report = node->report_;
    report.load = world.leader(0).report();
    report.load.weight_bytes = world.weight_bytes();
    report.load.workspace_bytes = world.workspace_bytes();
    report.kv_layout = world.leader(0).kv_layout();
    report.device =
        fmt::format("cpu, {} threads on {} of {} ranks, {}", options.threads, options.local_ranks(),
                    options.split.world(), device::to_string(complete.load.target.isa));
    FATHOM_ASSIGN(report.pool, world.make_cache(pool_request(
                                   options, available, report.load.weight_bytes + report.load.workspace_bytes,
                                   world.cache_bytes_per_token())));
    report.load_seconds = seconds_since(start_ns);
    return std::unique_ptr<Node>(std::move(node));
  }

  Result<void> run() override { return world_->obey(); }
  void ask_to_end() override { world_->ask_to_end(); }

 private:
  std::shared_ptr<RankWorld> world_;
};

}  // namespace

Result<std::unique_ptr<Node>> Node::start(const EngineOptions& options) {
  return options.cuda ? start_gpu_node(options) : CpuNode::start(options);
}

}  // namespace fathom::engine

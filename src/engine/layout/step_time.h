// The time of a step of a model that is split over GPUs, from what its kernels and links take
// (docs/simulation.md): which layout to choose, before any is tried.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "base/result.h"
#include "engine/layout/kernel_times.h"
#include "engine/layout/routing.h"
#include "engine/layout/traffic.h"
#include "model/config.h"

namespace fathom::engine {

// Microseconds of one step, parts one after another.
struct StepTime {
  double attention = 0.0, experts = 0.0, dense = 0.0, head = 0.0, meetings = 0.0;
  double total() const { return attention + experts + dense + head + meetings; }
};

class StepTimes {
 public:
  // kUnsupported where the kernels that the model needs were never timed on that GPU.
  static Result<StepTimes> make(const model::ModelConfig& config, const GpuKind& gpu, RoutingOptions routing);

  // A step of output tokens: `batch` sequences over all replicas and groups, `context` tokens each.
  StepTime decode(const Layout& layout, int64_t batch, double context);
  // A step of prompt tokens: of each group of each replica `tokens`, of prompts of `length`.
  StepTime prefill(const Layout& layout, int64_t tokens, double length);

 private:
  StepTimes(const model::ModelConfig& config, const GpuKind& gpu, RoutingOptions routing)
      : config_(config), gpu_(gpu), times_(gpu), routing_(routing) {}

  StepTime step(const Layout& layout, int64_t group_rows, double context, bool prompt);
  double attention_layer(const model::Shard& shard, double rows, double context, bool prompt) const;
  double expert_layer(const model::Shard& shard, int64_t rows);
  const std::vector<std::vector<int32_t>>& routed(int64_t tokens);

  model::ModelConfig config_;
  GpuKind gpu_;
  KernelTimes times_;
  RoutingOptions routing_;
  std::map<int64_t, std::vector<std::vector<int32_t>>> routed_;  // by tokens
};

// The layouts of so many GPUs worth comparing: copies, stages of a node, groups of requests, and experts
// split or spread; those that the model cannot be split in left out.
std::vector<Layout> layouts_of(const model::ModelConfig& config, int gpus, int nodes);

}  // namespace fathom::engine

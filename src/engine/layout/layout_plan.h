// Whether a model fits machines that need not be at hand, split in a given way, and what its ranks would pass
// to each other: for `fathom plan`, from config.json alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/layout/hardware.h"
#include "engine/layout/traffic.h"
#include "engine/layout/weight_format.h"
#include "engine/pool_size.h"
#include "engine/settings.h"
#include "model/memory.h"

namespace fathom::engine {

// What a rank runs on.
struct Machine {
  std::string title;
  bool gpu = false;
  int64_t memory_bytes = 0;       // that may be used: of each GPU, or of a node's main memory
  int64_t workspace_bytes = 0;    // of the whole model on a GPU that is here; 0: reckoned
  const GpuKind* kind = nullptr;  // null: given by its memory alone, or at hand
};

struct LayoutPlan {
  ModelFacts facts;
  model::ModelConfig config;
  Layout layout;
  Machine machine;
  const WeightFormat* format = nullptr;  // another than the config's
  int stage = 0;                         // of the rank whose memory follows, the one with most
  model::MemoryPlan memory;
  int64_t checkpoint_bytes = 0;  // of the tensors that all ranks read; 0 where the format is reckoned
  int64_t available_bytes = 0;   // of one rank
  int64_t page_size = 0;
  int32_t max_running = 0;             // of each group
  Result<PoolSize> pool = PoolSize{};  // of a group of requests; or why it does not fit
  std::vector<Traffic> traffic;

  bool fits() const { return pool.ok(); }
  int groups() const { return layout.split.dp * layout.replicas; }
  int64_t pool_tokens() const { return pool.ok() ? pool->pages * page_size : 0; }
  // Sequences of so many tokens that all groups hold at once.
  int64_t sequences(int64_t length) const;
};

struct LayoutRequest {
  Layout layout;
  Machine machine;
  const WeightFormat* format = nullptr;  // null: the config's
};

// Errors: the config or the flags are wrong, or the model cannot be split so. That it does not fit is no
// error but a plan.
Result<LayoutPlan> plan_layout(const Settings& settings, const LayoutRequest& request);

// For a plan that does not fit: "--tp 16 --nnodes 2", "awq weights (...)".
std::vector<std::string> what_would_fit(const Settings& settings, const LayoutRequest& request);

// "--tp 16 --dp 2 --enable-dp-attention --ep-size 16 --nnodes 2"
std::string flags_of(const Layout& layout);

}  // namespace fathom::engine

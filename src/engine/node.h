// A process that has ranks of a model and no requests: node 0 drives it (RankWorld::obey).
#pragma once

#include <memory>

#include "base/result.h"
#include "engine/engine.h"
#include "engine/rank_world.h"

namespace fathom::engine {

class Node {
 public:
  // Meets the other nodes, loads this one's ranks and their pools. `options.nodes.node` is above 0.
  static Result<std::unique_ptr<Node>> start(const EngineOptions& options);

  const EngineReport& report() const { return report_; }
  // Until node 0 ends it, in good order or with an error, which is the world's.
  Result<void> run() { return world_->obey(); }
  // Asks node 0 for that. Thread safe.
  void ask_to_end() { world_->ask_to_end(); }

 private:
  Node() = default;
  std::shared_ptr<RankWorld> world_;
  EngineReport report_;
};

}  // namespace fathom::engine

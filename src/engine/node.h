// A process that has ranks of a model and no requests: node 0 drives it.
#pragma once

#include <memory>

#include "base/result.h"
#include "engine/engine.h"

namespace fathom::engine {

class Node {
 public:
  // Meets the other nodes, loads this one's ranks and their pools. `options.nodes.node` is above 0.
  static Result<std::unique_ptr<Node>> start(const EngineOptions& options);
  virtual ~Node() = default;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  const EngineReport& report() const { return report_; }
  // Until node 0 ends it, in good order or with an error, which is the world's.
  virtual Result<void> run() = 0;
  // Asks node 0 for that. Thread safe.
  virtual void ask_to_end() = 0;

 protected:
  Node() = default;
  EngineReport report_;
};

}  // namespace fathom::engine

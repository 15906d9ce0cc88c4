// What the machine can do, measured beside the model's runs: `fathom bench` gives its figures as shares of
// it.
#pragma once

#include <memory>

#include "engine/engine.h"

namespace fathom::engine {

class Ceilings {
 public:
  virtual ~Ceilings() = default;
  virtual double read_bandwidth() = 0;  // GB/s of memory that the weights lie in
  virtual double compute_peak() = 0;    // GFLOP/s of the products' type
};

// Of the device that the options choose. `engine` lends its threads: only while no step runs.
Result<std::unique_ptr<Ceilings>> make_ceilings(const EngineOptions& options, Engine& engine);

}  // namespace fathom::engine

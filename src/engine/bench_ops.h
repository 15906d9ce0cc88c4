// Times single ops of the GPU at the shapes of V2-Lite and V3, beside what public kernels took on an H100
// (docs/benchmarks.md says which and how they were measured).
#pragma once

#include <functional>
#include <string>

#include "base/result.h"

namespace fathom::engine {

struct OpFigure {
  std::string op, shape;
  double us = 0.0;   // a call, from replays of a graph of calls over rotating buffers
  double gbs = 0.0;  // of the bytes that must move at least
  double tflops = 0.0;
  double share = 0.0;  // of the ceiling that bounds it: bandwidth or bf16 peak, measured in the same run
  const char* peer = "";
  double peer_us = 0.0;  // 0: not known
};

struct OpCeilings {
  double read_gbs = 0.0, bf16_tflops = 0.0;
};

// `begin` gets the ceilings, then `each` every figure as it is measured.
Result<void> bench_ops(const std::function<void(const OpCeilings&)>& begin,
                       const std::function<void(const OpFigure&)>& each);

}  // namespace fathom::engine

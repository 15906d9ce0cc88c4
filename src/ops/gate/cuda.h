// Which experts a token goes to, on the GPU (ops/gate/gate.h has the rules; all of them are here).
#pragma once

#include "device/cuda/stream.h"
#include "ops/cuda_batch.h"
#include "ops/gate/gate.h"

namespace fathom::ops::cuda {

struct GateArgs {
  const float* logits = nullptr;  // [T, E]
  const float* bias = nullptr;    // [E], noaux_tc only
  GateParams params;
  int64_t tokens = 0;
  int32_t* ids = nullptr;    // [T, K], best first
  float* weights = nullptr;  // [T, K]
};
void gate(device::cuda::Stream& stream, const GateArgs& args);

}  // namespace fathom::ops::cuda

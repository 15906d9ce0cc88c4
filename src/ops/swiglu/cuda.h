// y = silu(gate) * up on the GPU.
#pragma once

#include "device/cuda/stream.h"
#include "ops/cuda_batch.h"

namespace fathom::ops::cuda {

// gate and up come in turns of eight columns, as the packed weights have them (ops/linear/cuda.h): columns
// 16 j .. 16 j + 7 are gate, 16 j + 8 .. 16 j + 15 the up of the same eight outputs.
struct SwigluArgs {
  Matrix gate_up;                 // [T, 2 I], I % 8 == 0
  Matrix y;                       // [T, I]
  const int32_t* rows = nullptr;  // device count of valid rows, or null: all
};
void swiglu(device::cuda::Stream& stream, const SwigluArgs& args);

}  // namespace fathom::ops::cuda

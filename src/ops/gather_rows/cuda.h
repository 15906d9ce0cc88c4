// y[r] = x[ids[r]] on the GPU: the rows whose logits are wanted, tokens in the experts' order, and hidden
// states that are kept for a later step.
#pragma once

#include "device/cuda/stream.h"
#include "ops/cuda_batch.h"

namespace fathom::ops::cuda {

struct GatherRowsArgs {
  Matrix x, y;                   // of one dtype, whole rows a multiple of 16 bytes
  const int32_t* ids = nullptr;  // [y.rows] on the device; a negative one leaves its row as it is
  // Where row r goes instead: to row to[r] of y's memory, or nowhere where that is negative.
  const int32_t* to = nullptr;
  const int32_t* count = nullptr;  // device: rows from *count on are left as they are; null: all are wanted
};
void gather_rows(device::cuda::Stream& stream, const GatherRowsArgs& args);

}  // namespace fathom::ops::cuda

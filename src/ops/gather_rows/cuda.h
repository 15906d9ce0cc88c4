// y[r] = x[ids[r]] on the GPU: the rows whose logits are wanted, and tokens in the experts' order.
#pragma once

#include "device/cuda/stream.h"
#include "ops/cuda_batch.h"

namespace fathom::ops::cuda {

struct GatherRowsArgs {
  Matrix x, y;                     // of one dtype, whole rows a multiple of 16 bytes
  const int32_t* ids = nullptr;    // [y.rows] on the device; a negative one leaves its row as it is
  const int32_t* count = nullptr;  // device: rows from *count on are left as they are; null: all are wanted
};
void gather_rows(device::cuda::Stream& stream, const GatherRowsArgs& args);

}  // namespace fathom::ops::cuda

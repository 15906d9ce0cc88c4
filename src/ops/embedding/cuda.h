// y[t] = table[ids[t]] on the GPU.
#pragma once

#include "device/cuda/stream.h"
#include "ops/cuda_batch.h"

namespace fathom::ops::cuda {

struct EmbeddingArgs {
  const void* table = nullptr;  // [V, H] of table_dtype: F32, BF16 or F16
  device::DType table_dtype = device::DType::kBF16;
  const int32_t* ids = nullptr;  // [T] below V, on the device; zeros for a negative one
  int64_t tokens = 0, width = 0;
  float* y = nullptr;  // [T, H]
};
void embedding(device::cuda::Stream& stream, const EmbeddingArgs& args);

}  // namespace fathom::ops::cuda

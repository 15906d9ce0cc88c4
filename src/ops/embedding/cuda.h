// y[t] = table[ids[t] - first] on the GPU.
#pragma once

#include "device/cuda/stream.h"
#include "ops/cuda_batch.h"

namespace fathom::ops::cuda {

struct EmbeddingArgs {
  const void* table = nullptr;  // [rows, H] of table_dtype: F32, BF16 or F16
  device::DType table_dtype = device::DType::kBF16;
  int64_t first = 0, rows = 0;   // the ids of the table's rows
  const int32_t* ids = nullptr;  // [T] on the device; zeros for one that the table does not have
  int64_t tokens = 0, width = 0;
  float* y = nullptr;  // [T, H]
};
void embedding(device::cuda::Stream& stream, const EmbeddingArgs& args);

}  // namespace fathom::ops::cuda

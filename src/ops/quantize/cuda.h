// Activations rounded to FP8 in blocks of 128 columns (ref.h), for products with FP8 weights on the GPU.
// Where the activations come from a norm, the norm rounds them itself (ops/rms_norm).
#pragma once

#include "device/cuda/stream.h"
#include "ops/cuda_batch.h"

namespace fathom::ops::cuda {

struct QuantizeArgs {
  Matrix x;                       // [R, k] F32 or BF16
  QuantizedMatrix y;              // [R, k]
  const int32_t* rows = nullptr;  // device: rows from *rows on are left as they are; null: all are wanted
};
void quantize(device::cuda::Stream& stream, const QuantizeArgs& args);

// y[r] = x[ids[r]], values and scales: tokens in the experts' order.
struct GatherQuantizedArgs {
  QuantizedMatrix x, y;           // of one width
  const int32_t* ids = nullptr;   // [y.rows] on the device
  const int32_t* rows = nullptr;  // as above
};
void gather_quantized(device::cuda::Stream& stream, const GatherQuantizedArgs& args);

}  // namespace fathom::ops::cuda

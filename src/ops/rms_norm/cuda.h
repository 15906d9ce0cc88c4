// RMSNorm on the GPU: y = x / sqrt(mean(x^2) + eps) * weight, the sum of squares in float32 in an order that
// depends on the width alone.
#pragma once

#include "device/cuda/stream.h"
#include "ops/cuda_batch.h"

namespace fathom::ops::cuda {

// The residual stream: residual += delta (where delta.data is set), then y = norm(residual).
struct AddRmsNormArgs {
  float* residual = nullptr;      // [T, H], updated in place
  Matrix delta;                   // [T, H], or empty
  const float* weight = nullptr;  // [H]
  float eps = 1e-6F;
  Matrix y;                      // [T, H]
  QuantizedMatrix rounded = {};  // [T, H] what y holds in FP8 too; or empty
};
void add_rms_norm(device::cuda::Stream& stream, const AddRmsNormArgs& args);

// y = norm(x); x and y may be strided, and may be the same.
struct RmsNormArgs {
  Matrix x, y;                    // [T, W]
  const float* weight = nullptr;  // [W]
  float eps = 1e-6F;
  QuantizedMatrix rounded = {};  // as above
};
void rms_norm(device::cuda::Stream& stream, const RmsNormArgs& args);

}  // namespace fathom::ops::cuda

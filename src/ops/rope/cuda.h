// Rotary embedding on the GPU (ops/rope/rope.h has the formula). The table lies on the device.
#pragma once

#include "device/cuda/stream.h"
#include "ops/cuda_batch.h"

namespace fathom::ops::cuda {

struct RopeView {
  const float* cos = nullptr;  // [positions, half]
  const float* sin = nullptr;
  int64_t half = 0;  // Dr / 2
};

// Rotates the last 2 * half values of every head of x [T, heads * width], and writes them to `y` (which may
// be x itself): head h's at column h * y_head_stride + y_offset. Tokens at position -1 are skipped.
struct RopeArgs {
  Matrix x;
  int64_t heads = 0;
  int64_t width = 0;  // of a head in x
  Matrix y;
  int64_t y_head_stride = 0, y_offset = 0;
  const int32_t* positions = nullptr;  // [T], on the device
  RopeView table;
};
void rope(device::cuda::Stream& stream, const RopeArgs& args);

}  // namespace fathom::ops::cuda

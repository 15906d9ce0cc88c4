// The loops that probe.cc times.
#pragma once

#include "device/cuda/stream.h"

namespace fathom::device::cuda {

void queue_fill(Stream& stream, void* data, size_t bytes);                     // random bf16 values near 1
void queue_read(Stream& stream, const void* data, size_t bytes, float* sink);  // reads all of it
double queue_f32(Stream& stream, float* sink);  // returns its floating-point operations
double queue_bf16_mma(Stream& stream, float* sink);
double queue_bf16_wgmma(Stream& stream, const void* data, float* sink);  // sm_90a

}  // namespace fathom::device::cuda

// What this GPU's memory and multipliers can do right now: the ceilings that benches measure against.
#pragma once

#include "device/cuda/memory.h"
#include "device/cuda/stream.h"

namespace fathom::device::cuda {

// Movable. Each measurement takes a few milliseconds and the GPU for itself.
class Probe {
 public:
  static Result<Probe> create();

  double read_bandwidth(Stream& stream);  // GB/s of reading 1 GB once
  double bf16_peak(Stream& stream);       // GFLOP/s of bf16 matrix instructions (wgmma where there is)
  double f32_peak(Stream& stream);        // GFLOP/s of float32 multiply-adds

 private:
  DeviceBuffer data_;
  Event start_, stop_;
};

}  // namespace fathom::device::cuda

// y = x / sqrt(mean(x^2) + eps) * weight, optionally after x += delta (the residual stream).
#pragma once

#include "device/launch.h"
#include "device/tensor.h"

namespace fathom::ops {

struct RmsNormArgs {
  device::Tensor x;                       // [T, H] f32; updated in place when `delta` is given
  const device::Tensor* delta = nullptr;  // [T, H] f32, or none
  const float* weight = nullptr;          // [H]
  float eps = 1e-6F;
  device::Tensor y;  // [T, H] f32; may be x itself when there is no delta
};

using RmsNormFunction = void (*)(device::Launch&, const RmsNormArgs&);
RmsNormFunction choose_rms_norm(const device::Target& target);
void rms_norm_reference(device::Launch&, const RmsNormArgs&);

}  // namespace fathom::ops

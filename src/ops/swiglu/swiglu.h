// y = silu(gate) * up, silu(a) = a / (1 + exp(-a)); gate and up are the halves of one row.
#pragma once

#include "device/launch.h"
#include "device/tensor.h"

namespace fathom::ops {

struct SwigluArgs {
  device::Tensor gate_up;  // [T, 2 I] f32
  device::Tensor y;        // [T, I] f32
};

using SwigluFunction = void (*)(device::Launch&, const SwigluArgs&);
SwigluFunction choose_swiglu(const device::Target& target);
void swiglu_reference(device::Launch&, const SwigluArgs&);
// CHECKs the shapes.
void check_swiglu(const SwigluArgs&);

// One row, for kernels that fuse it. Plain pointers; n values each.
using SwigluRow = void (*)(const float* gate, const float* up, float* y, int64_t n);
SwigluRow choose_swiglu_row(const device::Target& target);

}  // namespace fathom::ops

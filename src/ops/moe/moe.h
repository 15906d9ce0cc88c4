// The routed experts: for each token, the weighted sum of its experts' SwiGLU MLPs. Reads the weights of the
// active experts only, each once a call.
//   y[t] (+)= sum_j weights[t, j] * down[e] (silu(gate[e] x[t]) * up[e] x[t]),  e = ids[t, j]
// added in the order of j, so that a token's result does not depend on the rest of the batch. Few tokens may
// bring the shared experts along: those compute for all tokens while the others wait for memory.
#pragma once

#include <span>

#include "device/launch.h"
#include "device/tensor.h"
#include "ops/linear/linear.h"

namespace fathom::ops {

struct MoeArgs {
  device::Tensor x;                       // [T, H] f32
  device::Tensor ids;                     // [T, K] i32 in [0, E), distinct in a row; -1: left out, for the
                                          // expert is another rank's
  device::Tensor weights;                 // [T, K] f32
  std::span<const PackedLinear> gate_up;  // [E] of [2 I, H]: gate rows, then up rows
  std::span<const PackedLinear> down;     // [E] of [H, I]
  device::Tensor y;                       // [T, H] f32
  bool accumulate = false;
  // The shared experts' MLP, added for every token before the others; both or neither.
  const PackedLinear* shared_gate_up = nullptr;  // [2 Is, H]
  const PackedLinear* shared_down = nullptr;     // [H, Is]
};

using MoeFunction = void (*)(device::Launch&, const MoeArgs&);
MoeFunction choose_moe(const device::Target& target, device::DType dtype, Compute compute);
void moe_reference(device::Launch&, const MoeArgs&);

}  // namespace fathom::ops

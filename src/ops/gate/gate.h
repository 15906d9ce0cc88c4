// Which experts a token goes to, from the gate's logits. Ties go to the lower expert.
//   softmax, greedy             (V2-Lite)  top K of softmax(logits)
//   softmax, group limited      (V2)       groups by their best score, other groups' scores 0, top K
//   sigmoid, noaux_tc           (V3)       choice c = sigmoid(logits) + bias; groups by the sum of their two
//   best c,
//                                          other groups out, top K by c; weights are the sigmoids without
//                                          bias
// Weights are normalised by (sum + 1e-20) when asked, then times the scaling factor.
#pragma once

#include <cstdint>

#include "device/launch.h"
#include "device/tensor.h"

namespace fathom::ops {

struct GateParams {
  enum class Scoring : uint8_t { kSoftmax, kSigmoid } scoring = Scoring::kSoftmax;
  enum class Method : uint8_t { kGreedy, kGroupLimitedGreedy, kNoAuxTc } method = Method::kGreedy;
  int32_t experts = 0;  // E
  int32_t top_k = 0;    // K
  int32_t groups = 1;   // E % groups == 0
  int32_t top_groups = 1;
  bool normalise = false;
  float scaling = 1.0F;
};

struct GateArgs {
  device::Tensor logits;        // [T, E] f32
  const float* bias = nullptr;  // [E], noaux_tc only
  GateParams params;
  device::Tensor ids;      // [T, K] i32, best first
  device::Tensor weights;  // [T, K] f32
};

using GateFunction = void (*)(device::Launch&, const GateArgs&);
GateFunction choose_gate(const device::Target& target);
void gate_reference(device::Launch&, const GateArgs&);

}  // namespace fathom::ops

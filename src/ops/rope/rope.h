// Rotary position embedding in the interleaved (GPT-J) layout that MLA uses, with YaRN's frequencies
// (Peng et al., "YaRN: Efficient Context Window Extension of Large Language Models", arXiv:2309.00071).
//   (a, b) = (v[2i], v[2i+1]) -> (a cos - b sin, a sin + b cos), angle = position * inv_freq[i]
#pragma once

#include <cstdint>
#include <vector>

#include "device/launch.h"
#include "device/tensor.h"

namespace fathom::ops {

// cos and sin for every position, already times the attention factor.
struct RopeTable {
  int64_t positions = 0;
  int64_t half = 0;             // Dr / 2
  std::vector<float> cos, sin;  // [positions, half]
};

// Rotates the last `2 * table.half` values of every head row in place.
struct RopeArgs {
  device::Tensor x;                    // [T, Nh, D] f32
  const int32_t* positions = nullptr;  // [T]
  const RopeTable* table = nullptr;
};

using RopeFunction = void (*)(device::Launch&, const RopeArgs&);
RopeFunction choose_rope(const device::Target& target);
void rope_reference(device::Launch&, const RopeArgs&);

}  // namespace fathom::ops

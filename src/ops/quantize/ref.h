// Activations in FP8: each block of 128 columns of a row is divided by a scale of its own and rounded to
// E4M3, as DeepSeek-V3 was trained (arXiv:2412.19437, section 3.3.2: tiles of 1 x 128, scaled to the largest
// magnitude).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fathom::ops {

inline constexpr int64_t kQuantizeBlock = 128;
inline constexpr float kLargestE4m3 = 448.0F;
// The least magnitude that a block is scaled to: below it, 448 / magnitude would leave float32.
inline constexpr float kLeastMagnitude = 0x1p-100F;

struct QuantizedRow {
  std::vector<uint8_t> values;
  std::vector<float> scales;  // of each block
};

// The plain reference: scale = max(|x|) / 448, value = round(x * (448 / max(|x|))), to nearest even. A NaN
// stays one; an infinity makes its block's products NaN.
QuantizedRow quantize_row_ref(std::span<const float> x);

}  // namespace fathom::ops

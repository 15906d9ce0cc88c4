// Where an element of a packed weight lies. See linear.h for why.
#pragma once

#include <array>
#include <cstdint>

#include "base/math.h"
#include "device/dtype.h"

namespace fathom::ops {

constexpr int64_t kPanelColumns = 16;
constexpr int64_t kScaleBlock = 128;  // of k, and of n in checkpoints

// k is padded to that of one AMX tile, two cache lines of float32 activations.
constexpr int64_t padded_k(int64_t k) {
  return round_up(k, int64_t{32});
}

// Place of element k of column 0 from the start of its panel, in elements. Column c is `column_step` * c
// later.
constexpr int64_t panel_offset(device::DType dtype, int64_t k) {
  constexpr std::array<int64_t, 4> kQuad = {0, 2, 1, 3};
  switch (dtype) {
    case device::DType::kBF16:
      return k / 2 * 32 + k % 2;
    case device::DType::kF8E4M3:
      return k / 4 * 64 + kQuad[static_cast<size_t>(k % 4)];
    default:
      return k * kPanelColumns;
  }
}
constexpr int64_t column_step(device::DType dtype) {
  return dtype == device::DType::kBF16 ? 2 : dtype == device::DType::kF8E4M3 ? 4 : 1;
}

}  // namespace fathom::ops

#include "ops/quantize/ref.h"

#include <algorithm>
#include <cmath>

#include "ops/linear/f8_encode.h"

namespace fathom::ops {

QuantizedRow quantize_row_ref(std::span<const float> x) {
  QuantizedRow row;
  row.values.reserve(x.size());
  for (size_t first = 0; first < x.size(); first += kQuantizeBlock) {
    const auto block = x.subspan(first, std::min<size_t>(kQuantizeBlock, x.size() - first));
    float largest = kLeastMagnitude;
    for (const float value : block) largest = std::fmax(largest, std::abs(value));
    row.scales.push_back(largest / kLargestE4m3);
    const float factor = kLargestE4m3 / largest;
    for (const float value : block) row.values.push_back(f32_to_f8e4m3(value * factor));
  }
  return row;
}

}  // namespace fathom::ops

// Rotation of one head's rope part over a vector type (ops/vector/).
#pragma once

#include <cstdint>

namespace fathom::ops {

// y and x [2 * half], may be the same; cos and sin [half].
template <class V>
void rotate(const float* x, const float* cos, const float* sin, int64_t half, float* y) {
  constexpr int64_t kPairs = V::kLanes / 2;
  int64_t i = 0;
  for (; i + kPairs <= half; i += kPairs) {
    const typename V::F v = V::load(x + 2 * i);
    const typename V::F along = V::mul(v, V::duplicate_pairs(cos + i));
    const typename V::F across = V::mul(V::swap_pairs(v), V::duplicate_pairs(sin + i));
    V::store(y + 2 * i, V::add_sub(along, across));
  }
  for (; i < half; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    y[2 * i] = a * cos[i] - b * sin[i];
    y[2 * i + 1] = b * cos[i] + a * sin[i];
  }
}

}  // namespace fathom::ops

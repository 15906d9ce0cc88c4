// RMS norm of one row over a vector type (ops/vector/). The order of the sum depends on the width only.
#pragma once

#include <cstdint>

namespace fathom::ops {

template <class V>
struct RmsNormRow {
  using F = typename V::F;

  // x += delta when given, then 1 / sqrt(mean(x^2) + eps).
  static float scale(float* x, const float* delta, int64_t width, float eps) {
    constexpr int64_t kLanes = V::kLanes;
    F sum[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
    int64_t i = 0;
    for (; i + 4 * kLanes <= width; i += 4 * kLanes) {
      for (int j = 0; j < 4; ++j) {
        F v = V::load(x + i + j * kLanes);
        if (delta != nullptr) {
          v = V::add(v, V::load(delta + i + j * kLanes));
          V::store(x + i + j * kLanes, v);
        }
        sum[j] = V::fma(v, v, sum[j]);
      }
    }
    float rest = 0.0F;
    for (; i < width; ++i) {
      if (delta != nullptr) x[i] += delta[i];
      rest += x[i] * x[i];
    }
    const float total = V::sum(V::add(V::add(sum[0], sum[1]), V::add(sum[2], sum[3]))) + rest;
    return 1.0F / __builtin_sqrtf(total / static_cast<float>(width) + eps);
  }

  // y = x * scale * weight
  static void apply(const float* x, float scale, const float* weight, int64_t width, float* y) {
    const F factor = V::set(scale);
    int64_t i = 0;
    for (; i + V::kLanes <= width; i += V::kLanes) {
      V::store(y + i, V::mul(V::mul(V::load(x + i), factor), V::load(weight + i)));
    }
    for (; i < width; ++i) y[i] = x[i] * scale * weight[i];
  }
};

}  // namespace fathom::ops

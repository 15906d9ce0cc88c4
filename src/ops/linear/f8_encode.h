// float32 to FP8 E4M3. Only for making test and dummy weights: serving reads FP8, it does not write it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace fathom::ops {

// The nearest value, ties to even; beyond 448 saturates; NaN stays NaN.
inline uint8_t f32_to_f8e4m3(float value) {
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return sign | 0x7fU;
  if (magnitude >= 464.0F) return sign | 0x7eU;
  if (magnitude == 0.0F) return sign;
  int exponent = 0;
  std::frexp(magnitude, &exponent);  // magnitude in [2^(exponent - 1), 2^exponent)
  const int power = std::max(exponent - 1, -6);
  // Steps of 2^(power - 3). The code of a normal is (power + 7) * 8 + (steps - 8), of a denormal its steps:
  // both are (power + 6) * 8 + steps, and a carry out of the mantissa lands on the next exponent by itself.
  const auto steps = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 3 - power)));
  return sign | static_cast<uint8_t>((power + 6) * 8 + steps);
}

}  // namespace fathom::ops

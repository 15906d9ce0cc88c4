#include "ops/swiglu/swiglu.h"

#include <cmath>

namespace fathom::ops {
namespace {

void swiglu_row_plain(const float* gate, const float* up, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = gate[i] / (1.0F + std::exp(-gate[i])) * up[i];
}

}  // namespace

SwigluRow choose_swiglu_row(const device::Target& /*target*/) {
  return swiglu_row_plain;
}
SwigluFunction choose_swiglu(const device::Target& /*target*/) {
  return swiglu_reference;
}

}  // namespace fathom::ops

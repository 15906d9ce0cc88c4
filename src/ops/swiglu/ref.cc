#include <cmath>

#include "ops/swiglu/swiglu.h"

namespace fathom::ops {

void check_swiglu(const SwigluArgs& args) {
  check_tensor("gate_up", args.gate_up, device::DType::kF32, {-1, 2 * args.y.dim(1)});
  check_tensor("y", args.y, device::DType::kF32, {args.gate_up.dim(0), -1});
}

void swiglu_reference(device::Launch& /*launch*/, const SwigluArgs& args) {
  check_swiglu(args);
  const int64_t n = args.y.dim(1);
  for (int64_t t = 0; t < args.y.dim(0); ++t) {
    const float* gate = args.gate_up.row<const float>(t);
    const float* up = gate + n;
    float* y = args.y.row<float>(t);
    for (int64_t i = 0; i < n; ++i) {
      const double a = gate[i];
      y[i] = static_cast<float>(a / (1.0 + std::exp(-a)) * static_cast<double>(up[i]));
    }
  }
}

}  // namespace fathom::ops

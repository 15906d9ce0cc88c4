#include <cmath>

#include "ops/rms_norm/rms_norm.h"

namespace fathom::ops {

void rms_norm_reference(device::Launch&, const RmsNormArgs& args) {
  const int64_t width = args.x.dim(1);
  for (int64_t t = 0; t < args.x.dim(0); ++t) {
    float* x = args.x.row<float>(t);
    float* y = args.y.row<float>(t);
    if (args.delta != nullptr) {
      const float* delta = args.delta->row<float>(t);
      for (int64_t i = 0; i < width; ++i) x[i] += delta[i];
    }
    double sum = 0;
    for (int64_t i = 0; i < width; ++i) sum += static_cast<double>(x[i]) * x[i];
    const double scale = 1.0 / std::sqrt(sum / static_cast<double>(width) + args.eps);
    for (int64_t i = 0; i < width; ++i) y[i] = static_cast<float>(x[i] * scale * args.weight[i]);
  }
}

}  // namespace fathom::ops

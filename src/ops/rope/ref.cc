#include "ops/rope/rope.h"

namespace fathom::ops {

void rope_reference(device::Launch&, const RopeArgs& args) {
  const int64_t half = args.table->half;
  const int64_t skip = args.x.dim(2) - 2 * half;
  for (int64_t t = 0; t < args.x.dim(0); ++t) {
    const int64_t row = args.positions[t] * half;
    for (int64_t h = 0; h < args.x.dim(1); ++h) {
      float* v = args.x.row<float>(t) + h * args.x.stride[1] + skip;
      for (int64_t i = 0; i < half; ++i) {
        const double cos = args.table->cos[static_cast<size_t>(row + i)];
        const double sin = args.table->sin[static_cast<size_t>(row + i)];
        const double a = v[2 * i], b = v[2 * i + 1];
        v[2 * i] = static_cast<float>(a * cos - b * sin);
        v[2 * i + 1] = static_cast<float>(a * sin + b * cos);
      }
    }
  }
}

}  // namespace fathom::ops

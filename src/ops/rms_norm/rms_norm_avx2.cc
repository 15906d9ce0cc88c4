#include "ops/rms_norm/rms_norm_kernel.h"
#include "ops/rms_norm/row.h"
#include "ops/vector/avx2.h"

namespace fathom::ops {

void rms_norm_row_avx2(float* x, const float* delta, const float* weight, float eps, int64_t width,
                       float* y) {
  RmsNormRow<Avx2>::apply(x, RmsNormRow<Avx2>::scale(x, delta, width, eps), weight, width, y);
}

}  // namespace fathom::ops

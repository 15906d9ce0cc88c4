#include "ops/rope/rope_kernel.h"
#include "ops/rope/row.h"
#include "ops/vector/avx2.h"

namespace fathom::ops {

void rope_row_avx2(float* x, const float* cos, const float* sin, int64_t half) {
  rotate<Avx2>(x, cos, sin, half, x);
}

}  // namespace fathom::ops

// The row kernel of rms_norm: plain pointers, so that its file may be built for another instruction set.
#pragma once

#include <cstdint>

namespace fathom::ops {

// x [width] (+= delta unless null), y [width].
void rms_norm_row_avx2(float* x, const float* delta, const float* weight, float eps, int64_t width, float* y);

}  // namespace fathom::ops

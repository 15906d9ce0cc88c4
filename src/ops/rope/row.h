// The row kernel of rope: plain pointers, so that its file may be built for another instruction set.
#pragma once

#include <cstdint>

namespace fathom::ops {

// Rotates x [2 * half] in place; cos and sin [half].
void rope_row_avx2(float* x, const float* cos, const float* sin, int64_t half);

}  // namespace fathom::ops

// The rows of each instruction set. Included by files built for them: plain data only.
#pragma once

#include <cstdint>

namespace fathom::ops {

void swiglu_row_avx2(const float* gate, const float* up, float* y, int64_t n);
void swiglu_row_avx512(const float* gate, const float* up, float* y, int64_t n);

}  // namespace fathom::ops

// The row kernels of embedding: plain pointers, so that their file may be built for another instruction set.
#pragma once

#include <cstdint>

namespace fathom::ops {

void widen_bf16_row_avx2(const uint16_t* x, float* y, int64_t count);
void widen_f16_row_avx2(const uint16_t* x, float* y, int64_t count);

}  // namespace fathom::ops

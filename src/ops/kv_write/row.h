// The row kernels of kv_write: plain pointers, so that their file may be built for another instruction set.
#pragma once

#include <cstdint>

namespace fathom::ops {

// y [latent + 2 * half]: the normalised latent and the rotated rope part of x.
void latent_row_avx2(const float* x, int64_t latent, int64_t half, const float* weight, float eps,
                     const float* cos, const float* sin, float* y);
// To bf16, to nearest, ties to even.
void narrow_row_avx2(const float* x, uint16_t* bf16, int64_t count);

}  // namespace fathom::ops

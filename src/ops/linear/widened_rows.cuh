// FP8 weights as one operand of wgmma, from registers: 128 of k of 64 rows, a warp's sixteen widened by
// itself.
#pragma once

#include "ops/linear/fp8_words.cuh"
#include "ops/wgmma.cuh"

namespace fathom::ops::cuda {

struct WidenedRows {
  uint32_t bytes[8][2];  // by 16 of k: of row lane / 4 of the warp's, and of eight below

  // The warp's rows of a tile, whose 16-byte lines lie swizzled by their row, as the copy engine left them.
  __device__ void read(const uint8_t* rows) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const uint8_t* row = rows + lane / 4 * 128;
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const int at = (k ^ (lane / 4)) * 16 + lane % 4 * 4;
      bytes[k][0] = *reinterpret_cast<const uint32_t*>(row + at);
      bytes[k][1] = *reinterpret_cast<const uint32_t*>(row + 8 * 128 + at);
    }
  }

  // part = their product with 2 kCount tokens, 64 of k of which lie behind the other 64; committed, not
  // waited for.
  template <int kCount>
  __device__ void multiply(float (&part)[kCount], const uint8_t* tokens) const {
    constexpr int kHalfBytes = 2 * kCount * 128;
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      uint32_t a[4];
      fp8_word_to_bf16(bytes[k][0], a[0], a[2]);
      fp8_word_to_bf16(bytes[k][1], a[1], a[3]);
      wgmma_fence();
      wgmma_registers(part, a, wgmma_tile(tokens + k / 4 * kHalfBytes) + 2 * (k % 4), k > 0);
    }
    wgmma_commit();
  }
};

}  // namespace fathom::ops::cuda

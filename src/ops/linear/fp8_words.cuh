// FP8 weights to bf16 in a kernel's registers.
#pragma once

#include <cuda_bf16.h>

#include "ops/linear/fp8_words.h"

namespace fathom::ops::cuda {

// The word's first and second pair, exactly: E4M3's bits in a bf16's places are the value times 2^-120
// (denormals too), and one multiplication makes up for it.
__device__ inline void fp8_word_to_bf16(uint32_t word, uint32_t& first, uint32_t& second) {
  const auto scaled = [](uint32_t moved) {
    const uint32_t factor = 0x7b807b80U;  // 2^120
    const __nv_bfloat162 value = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&moved),
                                         *reinterpret_cast<const __nv_bfloat162*>(&factor));
    return *reinterpret_cast<const uint32_t*>(&value);
  };
  first = scaled(word & 0x87f087f0U);
  second = scaled((word << 4 & 0x80f080f0U) | (word >> 4 & 0x07000700U));
}

}  // namespace fathom::ops::cuda

// How FP8 weights lie on the GPU. Every 16 of k of a row are four words, w = 0..3, of four values: those that
// a thread of a k16 product multiplies, k = 2 w, 2 w + 1, 2 w + 8 and 2 w + 9. Widening to bf16 is most of
// the work of these products, so the bits lie where it needs the fewest instructions: of each half of the
// word, bits 15 and 10-4 are the sign and the rest of the first pair's value, as a bf16 has them; the second
// pair's bits fill the others and come to their places by one shift left (sign and low four) and one right.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define FATHOM_BOTH __host__ __device__
#else
#define FATHOM_BOTH
#endif

namespace fathom::ops::cuda {

struct Fp8Place {
  int64_t word;  // of the row
  int value;     // of the word: 0 and 1 are the first pair
};
FATHOM_BOTH constexpr Fp8Place fp8_place(int64_t k) {
  const int within = static_cast<int>(k % 16);
  return {k / 16 * 4 + within % 8 / 2, within % 2 + within / 8 * 2};
}
FATHOM_BOTH constexpr int64_t fp8_column(Fp8Place place) {
  return place.word / 4 * 16 + place.word % 4 * 2 + place.value % 2 + place.value / 2 * 8;
}

FATHOM_BOTH constexpr uint32_t fp8_bits(uint8_t f8, int value) {
  const uint32_t bits = f8;
  const uint32_t half = value < 2 ? (bits & 0x80U) << 8 | (bits & 0x7fU) << 4
                                  : (bits & 0x70U) << 8 | (bits & 0x80U) << 4 | (bits & 0x0fU);
  return half << (value % 2 * 16);
}
// The bits of a word that are this value's.
FATHOM_BOTH constexpr uint32_t fp8_mask(int value) {
  return fp8_bits(0xff, value);
}
FATHOM_BOTH constexpr uint8_t fp8_value(uint32_t word, int value) {
  const uint32_t half = word >> (value % 2 * 16);
  return static_cast<uint8_t>(value < 2 ? (half >> 8 & 0x80U) | (half >> 4 & 0x7fU)
                                        : (half >> 8 & 0x70U) | (half >> 4 & 0x80U) | (half & 0x0fU));
}

}  // namespace fathom::ops::cuda

#undef FATHOM_BOTH

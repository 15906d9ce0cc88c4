// Avx512 with products of bf16 pairs: every 32-bit lane holds two bf16, and dot() adds both products to a
// float32. Denormal operands count as zero and so do denormal results. Included by *_avx512bf16.cc only.
#pragma once

#include "ops/vector/avx512.h"

namespace fathom::ops {
namespace {

struct Avx512Bf16 : Avx512 {
  static constexpr bool kPairs = true;

  static F dot(F a, F b, F c) { return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b); }
  // Rounds to nearest even; `low` in the low halves.
  static F pair(F low, F high) {
    const __m512i bottom = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(low));
    const __m512i top = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(high));
    return _mm512_castsi512_ps(_mm512_or_si512(bottom, _mm512_slli_epi32(top, 16)));
  }
  // pairs[2 i] = low[i], pairs[2 i + 1] = high[i] for 32 values.
  static void interleave(const uint16_t* low, const uint16_t* high, uint16_t* pairs) {
    const __m512i a = _mm512_loadu_si512(low), b = _mm512_loadu_si512(high);
    const __m512i first = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39,
                                           7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i second = _mm512_add_epi16(first, _mm512_set1_epi16(16));
    _mm512_storeu_si512(pairs, _mm512_permutex2var_epi16(a, first, b));
    _mm512_storeu_si512(pairs + 32, _mm512_permutex2var_epi16(a, second, b));
  }
};

}  // namespace
}  // namespace fathom::ops

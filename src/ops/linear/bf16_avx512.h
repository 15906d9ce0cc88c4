// Conversions to bf16 pairs that the vdpbf16ps and AMX kernels share. Included into their unnamed namespaces.

// Rounds k values to bf16 pairs, to nearest even: see PanelKernel::prepare.
void round_row(const float* x, int64_t k, int64_t k_padded, float* out, int64_t line_step) {
  for (int64_t i = 0; i < k_padded; i += 16) {
    const int64_t left = k - i;
    const __mmask16 mask = left >= 16 ? 0xffff : left <= 0 ? 0 : static_cast<__mmask16>((1U << left) - 1U);
    const __m512 values = _mm512_maskz_loadu_ps(mask, x + i);
    float* half_line = out + i / 32 * line_step + i % 32 / 2;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(half_line), (__m256i)_mm512_cvtneps_pbh(values));
  }
}

// 32 FP8 values, each on top (kTop) or at the bottom of 16 bits, to bf16, exactly. Exponent and mantissa move
// to their places in bf16 and the exponent's bias is corrected; the eight denormals (exponent 0) come from a
// table.
template <bool kTop>
__m512i f8_to_bf16(__m512i words) {
  const __m512i in_place = kTop ? _mm512_srli_epi16(words, 4) : _mm512_slli_epi16(words, 4);
  const __m512i sign = kTop ? words : _mm512_slli_epi16(words, 8);
  const __m512i index = kTop ? _mm512_srli_epi16(words, 8) : words;  // its low 5 bits: 00 and the mantissa
  const __m512i magnitude = _mm512_and_si512(in_place, _mm512_set1_epi16(0x07f0));
  const __mmask32 denormal = _mm512_testn_epi16_mask(magnitude, _mm512_set1_epi16(0x0780));
  // m * 2^-9 for m = 0 .. 7, twice in each row of 8 words, all over the register.
  const __m512i table =
      _mm512_broadcast_i32x4(_mm_setr_epi16(0x0000, 0x3b00, 0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60));
  const __m512i normal = _mm512_add_epi16(magnitude, _mm512_set1_epi16(120 << 7));
  const __m512i value = _mm512_mask_permutexvar_epi16(normal, denormal, index, table);
  // value | (sign & 0x8000)
  return _mm512_ternarylogic_epi32(value, sign, _mm512_set1_epi16(static_cast<short>(0x8000)), 0xf8);
}

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

// The operations of f8_to_bf16 on 32 words of 16 bits.
struct Words {
  using Vec = __m512i;
  template <int kBits>
  static Vec left(Vec v) {
    return _mm512_slli_epi16(v, kBits);
  }
  template <int kBits>
  static Vec right(Vec v) {
    return _mm512_srli_epi16(v, kBits);
  }
  static Vec mask(Vec v, uint16_t bits) {
    return _mm512_and_si512(v, _mm512_set1_epi16(static_cast<short>(bits)));
  }
  static Vec add(Vec v, uint16_t n) { return _mm512_add_epi16(v, _mm512_set1_epi16(static_cast<short>(n))); }
  // table[index % 8] where none of `bits` is set in v, else `other`. The index is below 8 in these places.
  static Vec table_where_clear(Vec v, uint16_t bits, Vec index, const uint16_t (&table)[8], Vec other) {
    const __mmask32 clear = _mm512_testn_epi16_mask(v, _mm512_set1_epi16(static_cast<short>(bits)));
    const __m512i row = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
    return _mm512_mask_permutexvar_epi16(other, clear, index, row);
  }
  // value | (sign & 0x8000)
  static Vec with_sign(Vec value, Vec sign) {
    return _mm512_ternarylogic_epi32(value, sign, _mm512_set1_epi16(static_cast<short>(0x8000)), 0xf8);
  }
};

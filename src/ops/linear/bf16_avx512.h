// Rounding to bf16 pairs, which the vdpbf16ps and AMX kernels share. Included into their unnamed namespaces.

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

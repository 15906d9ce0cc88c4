#include <immintrin.h>

#include "ops/swiglu/swiglu_rows.h"

namespace fathom::ops {
namespace {

#include "ops/swiglu/swiglu_skeleton.h"

struct Avx2 {
  using Vec = __m256;
  static constexpr int64_t kLanes = 8;
  static Vec load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
  static Vec set(float v) { return _mm256_set1_ps(v); }
  static Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
  static Vec multiply(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
  static Vec divide(Vec a, Vec b) { return _mm256_div_ps(a, b); }
  static Vec multiply_add(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
  // The second operand where one of them is NaN.
  static Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
  static Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
  static Vec round(Vec v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  // p in [0.7, 1.5) times 2^n: n added to the exponent, in two halves for the sake of n = 128.
  static Vec times_power_of_two(Vec p, Vec n) {
    const __m256i whole = _mm256_cvtps_epi32(n);
    const __m256i half = _mm256_srai_epi32(whole, 1);
    return _mm256_mul_ps(_mm256_mul_ps(p, power(half)), power(_mm256_sub_epi32(whole, half)));
  }
  static Vec infinity_above(Vec x, float limit, Vec v) {
    const Vec above = _mm256_cmp_ps(x, set(limit), _CMP_GT_OQ);
    return _mm256_blendv_ps(v, set(__builtin_inff()), above);
  }

 private:
  static Vec power(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
  }
};

}  // namespace

void swiglu_row_avx2(const float* gate, const float* up, float* y, int64_t n) {
  swiglu_row<Avx2>(gate, up, y, n);
}

}  // namespace fathom::ops

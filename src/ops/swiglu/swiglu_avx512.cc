#include <immintrin.h>

#include "ops/swiglu/swiglu_rows.h"

namespace fathom::ops {
namespace {

#include "ops/swiglu/swiglu_skeleton.h"

struct Avx512 {
  using Vec = __m512;
  static constexpr int64_t kLanes = 16;
  static Vec load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
  static Vec set(float v) { return _mm512_set1_ps(v); }
  static Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
  static Vec multiply(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
  static Vec divide(Vec a, Vec b) { return _mm512_div_ps(a, b); }
  static Vec multiply_add(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
  // The second operand where one of them is NaN.
  static Vec min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
  static Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
  static Vec round(Vec v) { return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static Vec times_power_of_two(Vec p, Vec n) { return _mm512_scalef_ps(p, n); }
  static Vec infinity_above(Vec x, float limit, Vec v) {
    return _mm512_mask_mov_ps(v, _mm512_cmp_ps_mask(x, set(limit), _CMP_GT_OQ), set(__builtin_inff()));
  }
};

}  // namespace

void swiglu_row_avx512(const float* gate, const float* up, float* y, int64_t n) {
  swiglu_row<Avx512>(gate, up, y, n);
}

}  // namespace fathom::ops

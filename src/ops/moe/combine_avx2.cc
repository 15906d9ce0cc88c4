#include "ops/moe/combine.h"

#include <immintrin.h>

namespace fathom::ops {

void combine_row_avx2(const CombineRow& c) {
  int64_t i = 0;
  for (; i + 8 <= c.n; i += 8) {
    __m256 sum = c.accumulate ? _mm256_loadu_ps(c.y + i) : _mm256_setzero_ps();
    for (int64_t j = 0; j < c.choices; ++j) {
      if (c.row_of[j] < 0) continue;
      const float* row = c.rows + c.row_of[j] * c.stride;
      sum = _mm256_fmadd_ps(_mm256_broadcast_ss(c.weights + j), _mm256_loadu_ps(row + i), sum);
    }
    _mm256_storeu_ps(c.y + i, sum);
  }
  for (; i < c.n; ++i) {
    __m128 sum = c.accumulate ? _mm_load_ss(c.y + i) : _mm_setzero_ps();
    for (int64_t j = 0; j < c.choices; ++j) {
      if (c.row_of[j] < 0) continue;
      const float* row = c.rows + c.row_of[j] * c.stride;
      sum = _mm_fmadd_ss(_mm_load_ss(c.weights + j), _mm_load_ss(row + i), sum);
    }
    _mm_store_ss(c.y + i, sum);
  }
}

}  // namespace fathom::ops

#include <immintrin.h>

#include "device/cpu/probe_loops.h"

namespace fathom::device {

float spin_fma_avx512(int64_t rounds) {
  __m512 sum[24];
  for (int i = 0; i < 24; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 a = _mm512_set1_ps(0.5F);
  const __m512 b = _mm512_set1_ps(0.25F);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 24
    for (int i = 0; i < 24; ++i) sum[i] = _mm512_fmadd_ps(a, sum[i], b);
  }
  for (int i = 1; i < 24; ++i) sum[0] = _mm512_add_ps(sum[0], sum[i]);
  return _mm512_cvtss_f32(sum[0]);
}

}  // namespace fathom::device

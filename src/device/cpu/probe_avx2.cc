#include <immintrin.h>

#include "device/cpu/probe_loops.h"

namespace fathom::device {

uint64_t read_avx2(const uint8_t* data, int64_t bytes) {
  // Four streams, as the kernels read four panels: more of them keep more lines on their way.
  constexpr int kStreams = 4;
  const int64_t part = bytes / kStreams;
  __m256i sum[2 * kStreams];
  for (auto& s : sum) s = _mm256_setzero_si256();
  for (int64_t i = 0; i < part; i += 64) {
    for (int j = 0; j < 2 * kStreams; ++j) {
      const auto* p = reinterpret_cast<const __m256i*>(data + j / 2 * part + i + j % 2 * 32);
      sum[j] = _mm256_add_epi64(sum[j], _mm256_load_si256(p));
    }
  }
  for (int j = 1; j < 2 * kStreams; ++j) sum[0] = _mm256_add_epi64(sum[0], sum[j]);
  alignas(32) uint64_t lanes[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), sum[0]);
  return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

float spin_fma_avx2(int64_t rounds) {
  __m256 sum[12];
  for (int i = 0; i < 12; ++i) sum[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 a = _mm256_set1_ps(0.5F);
  const __m256 b = _mm256_set1_ps(0.25F);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) sum[i] = _mm256_fmadd_ps(a, sum[i], b);
  }
  for (int i = 1; i < 12; ++i) sum[0] = _mm256_add_ps(sum[0], sum[i]);
  return _mm256_cvtss_f32(sum[0]);
}

}  // namespace fathom::device

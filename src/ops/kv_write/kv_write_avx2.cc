#include "ops/kv_write/row.h"
#include "ops/rms_norm/rms_norm_kernel.h"
#include "ops/rope/rope_kernel.h"
#include "ops/vector/avx2.h"

namespace fathom::ops {

void latent_row_avx2(const float* x, int64_t latent, int64_t half, const float* weight, float eps,
                     const float* cos, const float* sin, float* y) {
  // Without a delta the row is only read.
  const float scale = RmsNormRow<Avx2>::scale(const_cast<float*>(x), nullptr, latent, eps);
  RmsNormRow<Avx2>::apply(x, scale, weight, latent, y);
  rotate<Avx2>(x + latent, cos, sin, half, y + latent);
}

void narrow_row_avx2(const float* x, uint16_t* bf16, int64_t count) {
  int64_t i = 0;
  for (; i + Avx2::kLanes <= count; i += Avx2::kLanes) Avx2::store_bf16(bf16 + i, Avx2::load(x + i));
  if (i == count) return;
  float rest[Avx2::kLanes] = {};
  uint16_t narrow[Avx2::kLanes];
  for (int64_t j = i; j < count; ++j) rest[j - i] = x[j];
  Avx2::store_bf16(narrow, Avx2::load(rest));
  for (int64_t j = i; j < count; ++j) bf16[j] = narrow[j - i];
}

}  // namespace fathom::ops

#include "ops/embedding/row.h"
#include "ops/vector/avx2.h"

namespace fathom::ops {
namespace {

template <Avx2::F (*kLoad)(const uint16_t*)>
void widen(const uint16_t* x, float* y, int64_t count) {
  int64_t i = 0;
  for (; i + Avx2::kLanes <= count; i += Avx2::kLanes) Avx2::store(y + i, kLoad(x + i));
  if (i == count) return;
  uint16_t rest[Avx2::kLanes] = {};
  float wide[Avx2::kLanes];
  for (int64_t j = i; j < count; ++j) rest[j - i] = x[j];
  Avx2::store(wide, kLoad(rest));
  for (int64_t j = i; j < count; ++j) y[j] = wide[j - i];
}

}  // namespace

void widen_bf16_row_avx2(const uint16_t* x, float* y, int64_t count) {
  widen<Avx2::load_bf16>(x, y, count);
}
void widen_f16_row_avx2(const uint16_t* x, float* y, int64_t count) {
  widen<Avx2::load_f16>(x, y, count);
}

}  // namespace fathom::ops

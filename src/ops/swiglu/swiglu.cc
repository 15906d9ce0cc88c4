#include "ops/swiglu/swiglu.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "ops/swiglu/swiglu_rows.h"

namespace fathom::ops {
namespace {

using device::Isa;

void swiglu_row_plain(const float* gate, const float* up, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = gate[i] / (1.0F + std::exp(-gate[i])) * up[i];
}

template <SwigluRow kRow>
void swiglu_with(device::Launch& launch, const SwigluArgs& args) {
  check_swiglu(args);
  const int64_t n = args.y.dim(1);
  const auto rows = [&](int64_t begin, int64_t end, int /*worker*/) {
    for (int64_t t = begin; t < end; ++t) {
      const float* gate = args.gate_up.row<const float>(t);
      kRow(gate, gate + n, args.y.row<float>(t), n);
    }
  };
  // Waking the others pays from some tens of microseconds on.
  launch.pool().parallel_for(args.y.dim(0), std::max(int64_t{16384} / std::max(n, int64_t{1}), int64_t{1}),
                             std::ref(rows));
}

}  // namespace

SwigluRow choose_swiglu_row([[maybe_unused]] const device::Target& target) {
#if defined(__x86_64__)
  if (target.isa >= Isa::kAvx512) return swiglu_row_avx512;
  if (target.isa >= Isa::kAvx2) return swiglu_row_avx2;
#endif
  return swiglu_row_plain;
}

SwigluFunction choose_swiglu([[maybe_unused]] const device::Target& target) {
#if defined(__x86_64__)
  if (target.isa >= Isa::kAvx512) return swiglu_with<swiglu_row_avx512>;
  if (target.isa >= Isa::kAvx2) return swiglu_with<swiglu_row_avx2>;
#endif
  return swiglu_reference;
}

}  // namespace fathom::ops

// AVX2 and FMA: weights become float32 in registers (few rows) or in L1 (many), activations stay float32.
#include <immintrin.h>

#include "ops/linear/panel_kernel.h"

namespace fathom::ops {
namespace {

#include "ops/linear/panel_skeleton.h"

struct Avx2 {
  struct Vec {
    __m256 lo, hi;
  };
  using Operand = Vec;
  static constexpr int kUnitK = 1;
  static constexpr int kMaxRows = 6;
  static constexpr int kMaxPanels = 1;
  static constexpr bool kPanelByPanel = true;
  static constexpr int kStreamPanels[5] = {0, 4, 2, 1, 1};
  static constexpr int64_t kFetchAhead = 1536;
  static constexpr int64_t kUnpackBlocks = 4;

  static Vec zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static Vec load_sum(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static void store_sum(float* p, const Vec& v) {
    _mm256_storeu_ps(p, v.lo);
    _mm256_storeu_ps(p + 8, v.hi);
  }
  static Operand load_operand(const uint8_t* p) {
    const auto* f = reinterpret_cast<const float*>(p);
    return {_mm256_load_ps(f), _mm256_load_ps(f + 8)};
  }
  static void store_operand(uint8_t* p, const Operand& v) {
    auto* f = reinterpret_cast<float*>(p);
    _mm256_store_ps(f, v.lo);
    _mm256_store_ps(f + 8, v.hi);
  }
  static __m256 broadcast(const float* p) { return _mm256_broadcast_ss(p); }
  static Vec multiply_add(const Vec& sum, const __m256& unit, const Operand& w) {
    return {_mm256_fmadd_ps(unit, w.lo, sum.lo), _mm256_fmadd_ps(unit, w.hi, sum.hi)};
  }
};

struct Bits {
  __m256i lo, hi;
};
Bits load_bits(const uint8_t* p) {
  const auto* v = reinterpret_cast<const __m256i*>(p);
  return {_mm256_load_si256(v), _mm256_load_si256(v + 1)};
}

struct F32 : Avx2 {
  using Raw = Operand;
  static constexpr bool kScaled = false;
  static constexpr bool kUnpacks = false;
  static constexpr int kSteps = 1;
  static constexpr int64_t kSliceK = 256;
  static Raw load(const uint8_t* p) { return load_operand(p); }
  template <int S>
  static Operand step(const Raw& raw) {
    return raw;
  }
};

struct Bf16 : Avx2 {
  using Raw = Bits;
  static constexpr bool kScaled = false;
  static constexpr bool kUnpacks = true;
  static constexpr int kSteps = 2;
  static constexpr int64_t kSliceK = 256;
  static constexpr int64_t kAsideK = 256;
  static Raw load(const uint8_t* p) { return load_bits(p); }
  template <int S>
  static __m256 widen(__m256i pairs) {
    if constexpr (S == 0) return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
    return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000U))));
  }
  template <int S>
  static Operand step(const Raw& raw) {
    return {widen<S>(raw.lo), widen<S>(raw.hi)};
  }
};

// With its byte on top of 16 bits, shifting the exponent and mantissa of an FP8 value to those of a bf16
// gives value * 2^-120, exactly, denormals included; a bf16 is the upper half of a float32. Activations are
// scaled by 2^60, so that the sums stay far from float32's own limits; the other 2^60 is put back with the
// block's scale.
struct F8 : Avx2 {
  using Raw = Bits;
  static constexpr int kStreamPanels[5] = {0, 4, 2, 1, 1};
  static constexpr bool kScaled = true;
  static constexpr bool kUnpacks = true;
  static constexpr int kSteps = 4;
  static constexpr int64_t kSliceK = 128;
  static constexpr int64_t kAsideK = 128;
  static constexpr int64_t kUnpackBlocks = 3;  // to unpack costs as much as two rows of products
  static Raw load(const uint8_t* p) { return load_bits(p); }
  template <int S>
  static __m256 widen(__m256i quads) {
    // The bytes of a lane are k, k + 2, k + 1, k + 3: the lower of both words first, then the upper.
    const __m256i top = S < 2 ? _mm256_slli_epi16(quads, 8) : quads;
    const __m256i mask = _mm256_set1_epi16(static_cast<short>(0x87f0));
    const __m256i pairs = _mm256_and_si256(_mm256_srai_epi16(top, 4), mask);
    return Bf16::widen<S % 2>(pairs);
  }
  template <int S>
  static Operand step(const Raw& raw) {
    return {widen<S>(raw.lo), widen<S>(raw.hi)};
  }
  static Vec scale_add(const Vec& y, const Vec& sum, const float* scales) {
    const __m256 back = _mm256_set1_ps(0x1p60F);
    const __m256 lo = _mm256_mul_ps(sum.lo, back);
    const __m256 hi = _mm256_mul_ps(sum.hi, back);
    return {_mm256_fmadd_ps(lo, _mm256_loadu_ps(scales), y.lo),
            _mm256_fmadd_ps(hi, _mm256_loadu_ps(scales + 8), y.hi)};
  }
};

template <bool kScale>
__m256 scaled(__m256 v) {
  return kScale ? _mm256_mul_ps(v, _mm256_set1_ps(0x1p60F)) : v;
}
template <bool kScale>
void copy_row(const float* x, int64_t k, int64_t k_padded, float* out, int64_t line_step) {
  int64_t i = 0;
  for (; i + 16 <= k; i += 16, out += line_step) {
    _mm256_storeu_ps(out, scaled<kScale>(_mm256_loadu_ps(x + i)));
    _mm256_storeu_ps(out + 8, scaled<kScale>(_mm256_loadu_ps(x + i + 8)));
  }
  for (; i < k_padded; i += 16, out += line_step) {
    for (int64_t j = 0; j < 16; ++j) {
      const float value = i + j < k ? x[i + j] : 0.0F;
      out[j] = kScale ? value * 0x1p60F : value;
    }
  }
}

}  // namespace

const PanelKernel kAvx2F32{"avx2", device::Isa::kAvx2, multiply_panels<F32>, copy_row<false>, 1, 6, false};
const PanelKernel kAvx2Bf16{"avx2", device::Isa::kAvx2, multiply_panels<Bf16>, copy_row<false>, 1, 6, false};
const PanelKernel kAvx2F8{"avx2", device::Isa::kAvx2, multiply_panels<F8>, copy_row<true>, 1, 6, false};

}  // namespace fathom::ops

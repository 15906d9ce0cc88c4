// AVX-512 without bf16: as AVX2, with a whole row of a panel in one register.
#include <immintrin.h>

#include "ops/linear/panel_kernel.h"

namespace fathom::ops {
namespace {

#include "ops/linear/panel_skeleton.h"

struct Avx512 {
  using Vec = __m512;
  using Operand = __m512;
  static constexpr int kUnitK = 1;
  static constexpr int kMaxRows = 12;
  static constexpr int kMaxPanels = 2;
  static constexpr bool kPanelByPanel = false;
  static constexpr int kStreamPanels[5] = {0, 4, 4, 4, 4};
  static constexpr int64_t kFetchAhead = 0;
  static constexpr bool kUnpacks = false;
  static constexpr int64_t kSliceK = kAllK;

  static Vec zero() { return _mm512_setzero_ps(); }
  static Vec load_sum(const float* p) { return _mm512_loadu_ps(p); }
  static void store_sum(float* p, Vec v) { _mm512_storeu_ps(p, v); }
  static Operand load_operand(const uint8_t* p) { return _mm512_load_ps(p); }
  static void store_operand(uint8_t* p, Operand v) { _mm512_store_ps(p, v); }
  static __m512 broadcast(const float* p) { return _mm512_set1_ps(*p); }
  static Vec multiply_add(Vec sum, __m512 unit, Operand w) { return _mm512_fmadd_ps(unit, w, sum); }
};

struct F32 : Avx512 {
  using Raw = Operand;
  static constexpr bool kScaled = false;
  static constexpr int kSteps = 1;
  static Raw load(const uint8_t* p) { return load_operand(p); }
  template <int S>
  static Operand step(Raw raw) {
    return raw;
  }
};

struct Bf16 : Avx512 {
  using Raw = __m512i;
  static constexpr bool kScaled = false;
  static constexpr int kSteps = 2;
  static Raw load(const uint8_t* p) { return _mm512_load_si512(p); }
  template <int S>
  static Operand step(Raw pairs) {
    if constexpr (S == 0) return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
    return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000U))));
  }
};

// value * 2^-120, and activations * 2^60: see panel_avx2.cc.
struct F8 : Avx512 {
  using Raw = __m512i;
  static constexpr bool kScaled = true;
  static constexpr int kSteps = 4;
  static Raw load(const uint8_t* p) { return _mm512_load_si512(p); }
  template <int S>
  static Operand step(Raw quads) {
    constexpr unsigned kShift[4] = {24, 8, 16, 0};  // the bytes of a lane are k, k + 2, k + 1, k + 3
    const __m512i top = _mm512_srai_epi32(_mm512_slli_epi32(quads, kShift[S]), 4);
    return _mm512_castsi512_ps(_mm512_and_si512(top, _mm512_set1_epi32(static_cast<int>(0x87f00000U))));
  }
  static Vec scale_add(Vec y, Vec sum, const float* scales) {
    return _mm512_fmadd_ps(_mm512_mul_ps(sum, _mm512_set1_ps(0x1p60F)), _mm512_loadu_ps(scales), y);
  }
};

template <bool kScale>
void copy_row(const float* x, int64_t k, int64_t k_padded, float* out, int64_t line_step) {
  for (int64_t i = 0; i < k_padded; i += 16) {
    for (int64_t j = 0; j < 16; ++j) {
      const float value = i + j < k ? x[i + j] : 0.0F;
      out[j] = kScale ? value * 0x1p60F : value;
    }
    out += line_step;
  }
}

}  // namespace

const PanelKernel kAvx512F32{"avx512", device::Isa::kAvx512, multiply_panels<F32>, copy_row<false>, 1, 12,
                             false};
const PanelKernel kAvx512Bf16{"avx512", device::Isa::kAvx512, multiply_panels<Bf16>, copy_row<false>, 1, 12,
                              false};
const PanelKernel kAvx512F8{"avx512", device::Isa::kAvx512, multiply_panels<F8>, copy_row<true>, 1, 12,
                            false};

}  // namespace fathom::ops

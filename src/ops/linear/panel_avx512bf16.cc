// vdpbf16ps: sum + a[k] w[k] + a[k + 1] w[k + 1] in each of 16 columns; activations rounded to bf16.
#include <immintrin.h>

#include "ops/linear/panel_kernel.h"

namespace fathom::ops {
namespace {

#include "ops/linear/bf16_avx512.h"
#include "ops/linear/f8_to_bf16.h"
#include "ops/linear/panel_skeleton.h"

struct Dot {
  using Vec = __m512;
  using Operand = __m512i;
  using Raw = __m512i;
  static constexpr int kUnitK = 2;
  static constexpr int kMaxRows = 12;
  static constexpr int kMaxPanels = 2;
  static constexpr bool kPanelByPanel = false;
  static constexpr int kStreamPanels[5] = {0, 4, 4, 4, 4};
  static constexpr int64_t kFetchAhead = 0;
  static constexpr int64_t kUnpackBlocks = 0;

  static Vec zero() { return _mm512_setzero_ps(); }
  static Vec load_sum(const float* p) { return _mm512_loadu_ps(p); }
  static void store_sum(float* p, Vec v) { _mm512_storeu_ps(p, v); }
  static Raw load(const uint8_t* p) { return _mm512_load_si512(p); }
  static Operand load_operand(const uint8_t* p) { return _mm512_load_si512(p); }
  static void store_operand(uint8_t* p, Operand v) { _mm512_store_si512(p, v); }
  static __m512i broadcast(const float* p) { return _mm512_castps_si512(_mm512_set1_ps(*p)); }
  static Vec multiply_add(Vec sum, __m512i unit, Operand w) {
    return _mm512_dpbf16_ps(sum, (__m512bh)unit, (__m512bh)w);
  }
};

struct Bf16 : Dot {
  static constexpr bool kScaled = false;
  static constexpr bool kUnpacks = false;
  static constexpr int kSteps = 1;
  static constexpr int64_t kSliceK = 512;
  template <int S>
  static Operand step(Raw raw) {
    return raw;
  }
};

struct F8 : Dot {
  static constexpr bool kScaled = true;
  static constexpr bool kUnpacks = true;
  static constexpr int kSteps = 2;
  static constexpr int64_t kSliceK = 128;
  template <int S>
  static Operand step(Raw quads) {
    return f8_to_bf16<Words, S == 1>(quads);  // the bytes of a lane are k, k + 2, k + 1, k + 3
  }
  static Vec scale_add(Vec y, Vec sum, const float* scales) {
    return _mm512_fmadd_ps(sum, _mm512_loadu_ps(scales), y);
  }
};

}  // namespace

const PanelKernel kAvx512DotBf16{
    "avx512-bf16", device::Isa::kAvx512Bf16, multiply_panels<Bf16>, round_row, 2, 12, false};
const PanelKernel kAvx512DotF8{"avx512-bf16", device::Isa::kAvx512Bf16, multiply_panels<F8>, round_row, 2, 12,
                               false};

}  // namespace fathom::ops

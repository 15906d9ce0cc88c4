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
  static constexpr int kUnitK = 2;
  static constexpr int kMaxRows = 12;
  static constexpr int kMaxPanels = 2;
  static constexpr bool kPanelByPanel = false;
  static constexpr int kStreamPanels[5] = {0, 4, 4, 4, 4};
  static constexpr int64_t kFetchAhead = 0;
  static constexpr int64_t kSliceK = kAllK;

  static Vec zero() { return _mm512_setzero_ps(); }
  static Vec load_sum(const float* p) { return _mm512_loadu_ps(p); }
  static void store_sum(float* p, Vec v) { _mm512_storeu_ps(p, v); }
  static Operand load_operand(const uint8_t* p) { return _mm512_load_si512(p); }
  static void store_operand(uint8_t* p, Operand v) { _mm512_store_si512(p, v); }
  static __m512i broadcast(const float* p) { return _mm512_castps_si512(_mm512_set1_ps(*p)); }
  static Vec multiply_add(Vec sum, __m512i unit, Operand w) {
    return _mm512_dpbf16_ps(sum, (__m512bh)unit, (__m512bh)w);
  }
};

struct Bf16 : Dot {
  using Raw = Operand;
  static constexpr bool kScaled = false;
  static constexpr bool kUnpacks = false;
  static constexpr int kSteps = 1;
  static Raw load(const uint8_t* p) { return load_operand(p); }
  template <int S>
  static Operand step(Raw raw) {
    return raw;
  }
};

// Of values times 2^-8, see F8.
constexpr F8Tables kF8Tables alignas(64) = make_f8_tables(-8);

// Where the bytes of a panel's row come from: those of a bf16 from `lower` (0 to 63) and `upper` (64 to 127).
struct alignas(64) Interleave {
  uint8_t byte[2][64];
};
constexpr Interleave make_interleave() {
  Interleave from{};
  for (unsigned i = 0; i < 64; ++i) {
    for (unsigned s = 0; s < 2; ++s) from.byte[s][i] = static_cast<uint8_t>(i % 2 * 64 + i / 2 * 2 + s);
  }
  return from;
}
constexpr Interleave kInterleave = make_interleave();

// Every code, by tables: two look-ups give the bytes of 64 bf16, two more sort them into pairs.
struct F8Exact {
  struct Raw {
    __m512i lower, upper;
  };
  static constexpr int kSteps = 2;
  // The address by way of a register that the compiler knows nothing of: these rows are rare, and their
  // tables must not take the others' registers.
  static __m512i line(const uint8_t* p) {
    asm volatile("" : "+r"(p));
    return _mm512_load_si512(p);
  }
  static __m512i look_up(const uint8_t (&table)[128], __m512i codes) {
    return _mm512_permutex2var_epi8(line(table), codes, line(table + 64));
  }
  static Raw load(const uint8_t* p) {
    const __m512i codes = _mm512_load_si512(p);
    const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
    const __m512i upper = look_up(kF8Tables.upper, codes);
    return {look_up(kF8Tables.lower, codes), _mm512_ternarylogic_epi32(upper, codes, sign, 0xf8)};
  }
  template <int S>
  static __m512i step(const Raw& raw) {
    // The bytes of a lane are k, k + 2, k + 1, k + 3.
    return _mm512_permutex2var_epi8(raw.lower, line(kInterleave.byte[S]), raw.upper);
  }
};

// A code with an exponent: sign, exponent and mantissa go to their places in a bf16, and three bits set in
// its exponent, 0111eeee, make it the value times 2^-8. Five operations for 64 weights.
struct F8 : Dot {
  using Raw = __m512i;
  using Exact = F8Exact;
  static constexpr bool kScaled = true;
  static constexpr bool kUnpacks = true;
  static constexpr int kSteps = 2;
  static constexpr int64_t kUnpackBlocks = 3;
  static constexpr int64_t kAsideK = 1024;
  static Raw load(const uint8_t* p) { return _mm512_load_si512(p); }
  template <int S>
  static Operand step(Raw codes) {
    // The lower byte of each half, k and k + 1, then the upper one, k + 2 and k + 3.
    const __m512i top = S == 0 ? _mm512_slli_epi16(codes, 8) : codes;
    const __m512i keep = _mm512_set1_epi16(static_cast<short>(0x87f0));
    return _mm512_ternarylogic_epi32(_mm512_srai_epi16(top, 4), keep, _mm512_set1_epi16(0x3800), 0xea);
  }
  static Vec scale_add(Vec y, Vec sum, const float* scales) {
    return _mm512_fmadd_ps(_mm512_mul_ps(sum, _mm512_set1_ps(256.0F)), _mm512_loadu_ps(scales), y);
  }
};

}  // namespace

const PanelKernel kAvx512DotBf16{
    "avx512-bf16", device::Isa::kAvx512Bf16, multiply_panels<Bf16>, round_row, 2, 12, false};
const PanelKernel kAvx512DotF8{"avx512-bf16", device::Isa::kAvx512Bf16, multiply_panels<F8>, round_row, 2, 12,
                               false};

}  // namespace fathom::ops

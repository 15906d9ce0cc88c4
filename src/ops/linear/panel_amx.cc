// AMX: 16 rows x 32 k of bf16 activations times 32 k x 16 columns of weights into a 16 x 16 tile of sums, for
// any number of rows (even one: memory is the limit there, and every row's chain of additions must be the
// same).
#include <immintrin.h>

#include "device/cpu/tiles.h"
#include "ops/linear/panel_kernel.h"

namespace fathom::ops {
namespace {

#include "ops/linear/bf16_avx512.h"
#include "ops/linear/f8_to_bf16.h"
#include "ops/linear/panel_skeleton.h"

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileK = 32;
constexpr int64_t kTileBytes = 1024;
constexpr int64_t kTileFloats = 256;
constexpr int64_t kBlockK = 128;  // of an FP8 scale

// The tile instructions of GCC do not tell it that they read memory: what was stored before must be stored.
void settle_memory() {
  __asm__ volatile("" ::: "memory");
}

// Sums of up to 2 x 2 or 1 x 4 tiles, as they come out of the registers.
struct alignas(64) Sums {
  float tile[4][kTileRows * 16];
};

// `steps` tiles of k; b[i]: the first tile of panel i; a_second: floats from the first 16 rows to the
// next 16. Registers: 0..3 sums, 4.. activations, ..7 weights.
void multiply_2x2(const float* a, int64_t a_second, const uint8_t* const (&b)[4], int64_t steps, Sums& out) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t s = 0; s < steps; ++s) {
    _tile_loadd(6, b[0] + s * kTileBytes, 64);
    _tile_loadd(4, a + s * kTileFloats, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b[1] + s * kTileBytes, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + a_second + s * kTileFloats, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, out.tile[0], 64);
  _tile_stored(1, out.tile[1], 64);
  _tile_stored(2, out.tile[2], 64);
  _tile_stored(3, out.tile[3], 64);
}

void multiply_1x4(const float* a, const uint8_t* const (&b)[4], int64_t steps, Sums& out) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t s = 0; s < steps; ++s) {
    _tile_loadd(4, a + s * kTileFloats, 64);
    _tile_loadd(5, b[0] + s * kTileBytes, 64);
    _tile_dpbf16ps(0, 4, 5);
    _tile_loadd(6, b[1] + s * kTileBytes, 64);
    _tile_dpbf16ps(1, 4, 6);
    _tile_loadd(7, b[2] + s * kTileBytes, 64);
    _tile_dpbf16ps(2, 4, 7);
    _tile_loadd(5, b[3] + s * kTileBytes, 64);
    _tile_dpbf16ps(3, 4, 5);
  }
  _tile_stored(0, out.tile[0], 64);
  _tile_stored(1, out.tile[1], 64);
  _tile_stored(2, out.tile[2], 64);
  _tile_stored(3, out.tile[3], 64);
}

void multiply_1x1(const float* a, const uint8_t* const (&b)[4], int64_t steps, Sums& out) {
  _tile_zero(0);
  for (int64_t s = 0; s < steps; ++s) {
    _tile_loadd(4, a + s * kTileFloats, 64);
    _tile_loadd(5, b[0] + s * kTileBytes, 64);
    _tile_dpbf16ps(0, 4, 5);
  }
  _tile_stored(0, out.tile[0], 64);
}

struct Bf16 {
  static constexpr bool kScaled = false;
};
struct F8 {
  static constexpr bool kScaled = true;
};

// Adds a tile of sums to y, or puts it there; FP8's are scaled.
template <class K>
void add_tile(const float* sums, int64_t rows, const float* scales, bool begins, float* y, int64_t y_stride) {
  for (int64_t r = 0; r < rows; ++r) {
    float* out = y + r * y_stride;
    const __m512 sum = _mm512_load_ps(sums + 16 * r);
    const __m512 before = begins ? _mm512_setzero_ps() : _mm512_loadu_ps(out);
    if constexpr (K::kScaled) {
      _mm512_storeu_ps(out, _mm512_fmadd_ps(sum, _mm512_loadu_ps(scales), before));
    } else {
      _mm512_storeu_ps(out, _mm512_add_ps(sum, before));
    }
  }
}

// All rows of `width` panels (4, 2 or 1) over k in [k, k + span); b as above.
template <class K>
void multiply_rows_of(const PanelProduct& p, int64_t panel, int64_t width, const uint8_t* const (&b)[4],
                      int64_t k, int64_t span) {
  Sums sums;
  const int64_t steps = span / kTileK;
  const bool begins = k == 0 && !p.accumulate;
  const float* scales = K::kScaled ? p.scales + k / kBlockK * p.scale_stride + 16 * panel : nullptr;
  for (int64_t row = 0; row < p.rows;) {
    const float* a = p.a + row * p.units + k / kTileK * kTileFloats;
    const int64_t left = p.rows - row;
    const int64_t tall = left > kTileRows && width == 2 ? 2 : 1;
    if (width == 4) {
      multiply_1x4(a, b, steps, sums);
    } else if (tall == 2) {
      multiply_2x2(a, kTileRows * p.units, b, steps, sums);
    } else {
      for (int64_t i = 0; i < width; ++i) {
        const uint8_t* const one[4] = {b[i], nullptr, nullptr, nullptr};
        Sums& single = *reinterpret_cast<Sums*>(&sums.tile[i]);
        multiply_1x1(a, one, steps, single);
      }
    }
    settle_memory();
    for (int64_t t = 0; t < tall * width; ++t) {
      const int64_t first = row + t / width * kTileRows;
      const int64_t rows = p.rows - first < kTileRows ? p.rows - first : kTileRows;
      const int64_t column = 16 * (panel + t % width);
      add_tile<K>(sums.tile[t], rows, K::kScaled ? scales + 16 * (t % width) : nullptr, begins,
                  p.y + first * p.y_stride + column, p.y_stride);
    }
    row += tall * kTileRows;
  }
}

// One to 16 rows stream four panels at a time; more take two, so that each tile loaded is used twice.
int64_t panels_at_once(const PanelProduct& p, int64_t panel) {
  const int64_t wide = p.rows <= kTileRows ? 4 : 2;
  return p.panels - panel >= wide ? wide : 1;
}

void widen_block(const uint8_t* w, int64_t span, uint8_t* out) {
  for (int64_t i = 0; i < span / 4; ++i) {
    const __m512i quads = _mm512_load_si512(w + 64 * i);
    _mm512_store_si512(out + 128 * i, f8_to_bf16<Words, false>(quads));
    _mm512_store_si512(out + 128 * i + 64, f8_to_bf16<Words, true>(quads));
  }
  settle_memory();
}

template <>
void multiply_whole<Bf16>(const PanelProduct& p) {
  const device::Tiles tiles;
  settle_memory();
  for (int64_t panel = 0; panel < p.panels;) {
    const int64_t width = panels_at_once(p, panel);
    const uint8_t* b[4] = {};
    for (int64_t i = 0; i < width; ++i) b[i] = p.w + (panel + i) * p.panel_bytes;
    multiply_rows_of<Bf16>(p, panel, width, b, 0, p.k);
    panel += width;
  }
}

template <>
void multiply_whole<F8>(const PanelProduct& p) {
  const device::Tiles tiles;
  auto* wide = reinterpret_cast<uint8_t*>(p.scratch);
  constexpr int64_t kWideBytes = kBlockK * 16 * 2;
  for (int64_t panel = 0; panel < p.panels;) {
    const int64_t width = panels_at_once(p, panel);
    for (int64_t k = 0; k < p.k; k += kBlockK) {
      const int64_t span = p.k - k < kBlockK ? p.k - k : kBlockK;
      const uint8_t* b[4] = {};
      for (int64_t i = 0; i < width; ++i) {
        widen_block(p.w + (panel + i) * p.panel_bytes + k * 16, span, wide + i * kWideBytes);
        b[i] = wide + i * kWideBytes;
      }
      multiply_rows_of<F8>(p, panel, width, b, k, span);
    }
    panel += width;
  }
}

}  // namespace

const PanelKernel kAmxBf16{"amx", device::Isa::kAmx, multiply_panels<Bf16>, round_row, 2, 16, true};
const PanelKernel kAmxF8{"amx", device::Isa::kAmx, multiply_panels<F8>, round_row, 2, 16, true};

}  // namespace fathom::ops

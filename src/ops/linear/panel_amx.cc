// AMX: 16 rows x 32 k of bf16 activations times 32 k x 16 columns of weights into a 16 x 16 tile of sums, for
// any number of rows (even one: memory is the limit there, and every row's chain of additions must be the
// same).
#include <immintrin.h>

#include "device/cpu/tiles.h"
#include "ops/linear/panel_kernel.h"

namespace fathom::ops {
namespace {

#include "ops/linear/bf16_avx512.h"
#include "ops/linear/panel_skeleton.h"

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileK = 32;
constexpr int64_t kTileBytes = 1024;
constexpr int64_t kTileFloats = 256;

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
// Adds a tile of sums to y, or puts it there.
void add_tile(const float* sums, int64_t rows, bool begins, float* y, int64_t y_stride) {
  for (int64_t r = 0; r < rows; ++r) {
    float* out = y + r * y_stride;
    const __m512 sum = _mm512_load_ps(sums + 16 * r);
    const __m512 before = begins ? _mm512_setzero_ps() : _mm512_loadu_ps(out);
    _mm512_storeu_ps(out, _mm512_add_ps(sum, before));
  }
}

// All rows of `width` panels (4, 2 or 1); b as above.
void multiply_rows_of(const PanelProduct& p, int64_t panel, int64_t width, const uint8_t* const (&b)[4]) {
  Sums sums;
  const int64_t steps = p.k / kTileK;
  for (int64_t row = 0; row < p.rows;) {
    const float* a = p.a + row * p.units;
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
      add_tile(sums.tile[t], rows, !p.accumulate, p.y + first * p.y_stride + column, p.y_stride);
    }
    row += tall * kTileRows;
  }
}

// One to 16 rows stream four panels at a time; more take two, so that each tile loaded is used twice.
int64_t panels_at_once(const PanelProduct& p, int64_t panel) {
  const int64_t wide = p.rows <= kTileRows ? 4 : 2;
  return p.panels - panel >= wide ? wide : 1;
}

template <>
void multiply_whole<Bf16>(const PanelProduct& p) {
  const device::Tiles tiles;
  settle_memory();
  for (int64_t panel = 0; panel < p.panels;) {
    const int64_t width = panels_at_once(p, panel);
    const uint8_t* b[4] = {};
    for (int64_t i = 0; i < width; ++i) b[i] = p.w + (panel + i) * p.panel_bytes;
    multiply_rows_of(p, panel, width, b);
    panel += width;
  }
}

}  // namespace

const PanelKernel kAmxBf16{"amx", device::Isa::kAmx, multiply_panels<Bf16>, round_row, 2, 16, true};

}  // namespace fathom::ops

// The kernels under linear, batched_linear and moe: rows of activations times panels of a packed weight. One
// list of them, best first; the ops on top differ only in how they split the work and gather the rows.
//
// This header is included by files built for other instruction sets: plain data only, nothing inline from
// std.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/cpu/isa.h"
#include "device/dtype.h"

namespace fathom::ops {

enum class Compute : uint8_t;

// Activations in the form that the kernels read them: 32-bit units, one float32 or two bf16 (k, k + 1). Rows
// are grouped in blocks of `block_rows`, and in a block, lines of 16 units of one row follow each other row
// by row, so that a register tile reads front to back:
//   row r, unit u: a[r / block_rows * block_rows * units + u / 16 * 16 * block_rows + r % block_rows * 16 + u
//   % 16]
// A block of one row is a plain row; a block of 16 rows of bf16 is a sequence of AMX tiles.
//
// y[r, c] (+)= sum over k of a[r, k] * w[k, c], for `rows` rows and the columns of `panels` consecutive
// panels.
struct PanelProduct {
  const float* a = nullptr;
  int64_t block_rows = 0;  // PanelKernel::block_rows of the rows; the last block may have fewer
  int64_t units = 0;       // of a row: k / unit_k
  int64_t rows = 0;
  int64_t k = 0;               // padded to 32 with zeros
  const uint8_t* w = nullptr;  // the first panel
  int64_t panel_bytes = 0;     // from one panel to the next
  int64_t panels = 0;
  const float* scales = nullptr;  // FP8: the first panel's record (layout.h)
  int64_t record = 0;             // from one record to the next
  int64_t scale_blocks = 0;       // of 128 k
  float* y = nullptr;             // the first panel's first column
  int64_t y_stride = 0;
  int64_t columns = 0;  // outputs that exist: 16 * panels, or less when the last panel is cut
  bool accumulate = false;
  std::byte* scratch = nullptr;  // kPanelScratchBytes of this worker's, 64-byte aligned
};

constexpr size_t kPanelScratchBytes = size_t{64} << 10;
constexpr int64_t kMaxBlockRows = 16;
// Up to so many rows, kernels stream the weights through registers; their block is all the rows.
constexpr int64_t kStreamRows = 4;

struct PanelKernel {
  const char* name;
  device::Isa needs;
  void (*multiply)(const PanelProduct& product);
  // One row of x into lines of 16 units, `line_step` floats apart, with zeros from k to k_padded.
  void (*prepare)(const float* x, int64_t k, int64_t k_padded, float* out, int64_t line_step);
  int64_t unit_k;     // k of one unit: 1 or 2
  int64_t tile_rows;  // rows of the register tile
  bool whole_tiles;   // a block is always tile_rows, what is too much being computed in vain (AMX)

  // Even blocks: 7 rows are 4 and 3, not 6 and 1.
  constexpr int64_t block_rows(int64_t rows) const {
    if (whole_tiles) return tile_rows;
    if (rows <= kStreamRows) return rows;
    const int64_t tiles = (rows + tile_rows - 1) / tile_rows;
    return (rows + tiles - 1) / tiles;
  }
};

// The kernels of each instruction set.
extern const PanelKernel kAvx2F32, kAvx2Bf16, kAvx2F8;
extern const PanelKernel kAvx512F32, kAvx512Bf16, kAvx512F8;
extern const PanelKernel kAvx512DotBf16, kAvx512DotF8;  // vdpbf16ps
extern const PanelKernel kAmxBf16;

}  // namespace fathom::ops

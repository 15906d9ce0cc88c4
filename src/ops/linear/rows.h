// How the ops hand their rows and panels to the kernels.
#pragma once

#include <algorithm>

#include "base/math.h"
#include "device/launch.h"
#include "ops/linear/layout.h"
#include "ops/linear/linear.h"
#include "ops/linear/panel_kernel.h"

namespace fathom::ops {

// The best kernel of a target for packed weights of `dtype`, null for the reference. kF32 takes no kernel
// that rounds activations.
const PanelKernel* choose_panel_kernel(const device::Target& target, device::DType dtype, Compute compute);

// Rows in the form that a kernel takes (panel_kernel.h).
struct PreparedRows {
  const float* data = nullptr;
  int64_t block_rows = 1;
};

inline int64_t prepared_units(const PanelKernel& kernel, int64_t k) {
  return padded_k(k) / kernel.unit_k;
}
// Rows that the blocks of `rows` rows occupy.
inline int64_t prepared_rows(const PanelKernel& kernel, int64_t rows) {
  return round_up(rows, kernel.block_rows(rows));
}
inline size_t prepared_bytes(const PanelKernel& kernel, int64_t rows, int64_t k) {
  return static_cast<size_t>(prepared_rows(kernel, rows) * prepared_units(kernel, k)) * sizeof(float);
}
// A lone row of float32 serves as it is when k needs no padding and FP8 no scaling.
inline bool takes_as_it_is(const PanelKernel& kernel, device::DType weight, int64_t rows, int64_t k) {
  return rows == 1 && kernel.unit_k == 1 && weight != device::DType::kF8E4M3 && padded_k(k) == k;
}
// Row `row` of blocks of `block_rows`, into `out` (the first block).
inline void prepare_row(const PanelKernel& kernel, const float* x, int64_t k, int64_t row, int64_t block_rows,
                        float* out) {
  const int64_t block = row / block_rows;
  float* first = out + block * block_rows * prepared_units(kernel, k) + row % block_rows * 16;
  kernel.prepare(x, k, padded_k(k), first, 16 * block_rows);
}

// The kernel's arguments for all panels of `weight`; `narrow` cuts them to a range of panels, `cut_rows` to
// one of rows.
inline PanelProduct product_of(const PanelKernel& kernel, const PackedLinear& weight, PreparedRows a,
                               int64_t rows, float* y, int64_t y_stride, bool accumulate) {
  PanelProduct p;
  p.a = a.data;
  p.block_rows = a.block_rows;
  p.units = prepared_units(kernel, weight.k);
  p.rows = rows;
  p.k = weight.k_padded;
  p.w = static_cast<const uint8_t*>(weight.data);
  p.panel_bytes = kPanelColumns * weight.k_padded * device::size_of(weight.dtype);
  p.panels = weight.n_padded / kPanelColumns;
  p.scales = weight.scales;
  p.record = panel_record(weight.k);
  p.scale_blocks = scale_blocks(weight.k);
  p.y = y;
  p.y_stride = y_stride;
  p.columns = weight.n;
  p.accumulate = accumulate;
  return p;
}
inline PanelProduct narrow(PanelProduct p, int64_t first_panel, int64_t panels) {
  p.w += first_panel * p.panel_bytes;
  if (p.scales != nullptr) p.scales += first_panel * p.record;
  p.y += first_panel * kPanelColumns;
  p.columns = std::min(p.columns - first_panel * kPanelColumns, panels * kPanelColumns);
  p.panels = panels;
  return p;
}

// Part `part` of `parts`, cut between blocks.
inline PanelProduct cut_rows(PanelProduct p, int64_t part, int64_t parts) {
  const int64_t blocks = ceil_div(p.rows, p.block_rows);
  const int64_t begin = blocks * part / parts * p.block_rows;
  const int64_t end = std::min(blocks * (part + 1) / parts * p.block_rows, p.rows);
  p.a += begin * p.units;
  p.y += begin * p.y_stride;
  p.rows = end - begin;
  return p;
}

// Panels in the pieces that the threads take one after another: each thread's first is half of its share, the
// next a quarter, and so on. Long pieces read long runs of memory, and the short ones at the end even out
// what disturbs a thread. Whole groups of four panels, which stream best, where there are enough of them.
class PanelPieces {
 public:
  PanelPieces(int64_t panels, int64_t threads)
      : panels_(panels), threads_(threads), unit_(panels < 8 * threads ? 1 : 4) {
    int64_t begin = 0;
    for (int64_t round = 0; begin < panels_; ++round) {
      const int64_t left = ceil_div(panels_ - begin, size(round));
      const int64_t pieces = round < kRounds ? std::min(left, threads_) : left;
      count_ += pieces;
      begin += pieces * size(round);
    }
  }
  int64_t count() const { return count_; }
  // The first panel of piece i; where the last one ends, for i = count().
  int64_t first(int64_t i) const {
    int64_t begin = 0;
    int64_t round = 0;
    for (; round < kRounds && i >= threads_; ++round, i -= threads_) begin += threads_ * size(round);
    return std::min(begin + i * size(round), panels_);
  }

 private:
  static constexpr int64_t kRounds = 3;  // of ever shorter pieces; a sixteenth each after those
  int64_t size(int64_t round) const {
    return std::max(panels_ / (threads_ << (std::min(round, kRounds) + 1)) / unit_ * unit_, unit_);
  }

  int64_t panels_, threads_, unit_;
  int64_t count_ = 0;
};

}  // namespace fathom::ops

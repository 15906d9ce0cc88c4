// How the ops hand their rows and panels to the kernels.
#pragma once

#include <span>

#include "base/math.h"
#include "device/launch.h"
#include "ops/linear/layout.h"
#include "ops/linear/linear.h"
#include "ops/linear/panel_kernel.h"

namespace fathom::ops {

// The best kernel of a target for packed weights of `dtype`, null for the reference. kF32 takes no kernel
// that rounds activations.
const PanelKernel* choose_panel_kernel(const device::Target& target, device::DType dtype, Compute compute);

// Rows in the form that a kernel takes.
struct PreparedRows {
  const float* data = nullptr;
  int64_t stride = 0;  // units
};

// Units of one prepared row. One cache line more than it needs where the distance would else be a multiple of
// a page, which would put all rows of a tile into the same sets of L1.
inline int64_t prepared_stride(const PanelKernel& kernel, int64_t k) {
  const int64_t units = round_up(prepared_k(kernel, k) / kernel.unit_k, int64_t{16});
  return units % 256 == 0 ? units + 16 : units;
}
inline size_t prepared_bytes(const PanelKernel& kernel, int64_t rows, int64_t k) {
  return static_cast<size_t>((rows + kRowSlack) * prepared_stride(kernel, k)) * sizeof(float);
}
inline bool takes_as_they_are(const PanelKernel& kernel, int64_t k) {
  return kernel.takes_plain && prepared_k(kernel, k) == k;
}

// The kernel's arguments for all panels of `weight`; `narrow` cuts them to a range of panels.
inline PanelProduct product_of(const PanelKernel& kernel, const PackedLinear& weight, PreparedRows a,
                               int64_t rows, float* y, int64_t y_stride, bool accumulate) {
  PanelProduct p;
  p.a = a.data;
  p.a_stride = a.stride;
  p.rows = rows;
  p.k = prepared_k(kernel, weight.k);
  p.w = static_cast<const uint8_t*>(weight.data);
  p.panel_bytes = kPanelColumns * weight.k_padded * device::size_of(weight.dtype);
  p.panels = weight.n_padded / kPanelColumns;
  p.scales = weight.scales;
  p.scale_stride = weight.n_padded;
  p.y = y;
  p.y_stride = y_stride;
  p.columns = weight.n;
  p.accumulate = accumulate;
  return p;
}
inline PanelProduct narrow(PanelProduct p, int64_t first_panel, int64_t panels) {
  p.w += first_panel * p.panel_bytes;
  if (p.scales != nullptr) p.scales += first_panel * kPanelColumns;
  p.y += first_panel * kPanelColumns;
  p.columns = std::min(p.columns - first_panel * kPanelColumns, panels * kPanelColumns);
  p.panels = panels;
  return p;
}

}  // namespace fathom::ops

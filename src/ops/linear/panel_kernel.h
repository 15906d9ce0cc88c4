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

// y[r, c] (+)= sum over k of a[r, k] * w[k, c], for `rows` rows and the columns of `panels` consecutive
// panels.
struct PanelProduct {
  const float* a = nullptr;  // rows of 32-bit units: one float32, or two bf16 (k, k + 1)
  int64_t a_stride = 0;      // units between rows
  int64_t rows = 0;
  int64_t k = 0;               // padded (prepared_k)
  const uint8_t* w = nullptr;  // the first panel
  int64_t panel_bytes = 0;     // from one panel to the next
  int64_t panels = 0;
  const float* scales = nullptr;  // FP8: of the first column; the next block of 128 k is scale_stride on
  int64_t scale_stride = 0;
  float* y = nullptr;  // the first panel's first column
  int64_t y_stride = 0;
  int64_t columns = 0;  // outputs that exist: 16 * panels, or less when the last panel is cut
  bool accumulate = false;
  std::byte* scratch = nullptr;  // kPanelScratchBytes of this worker's, 64-byte aligned
};

constexpr size_t kPanelScratchBytes = size_t{64} << 10;
// Rows of prepared activations that a kernel may read past the last one (AMX takes 16 at a time).
constexpr int64_t kRowSlack = 16;

struct PanelKernel {
  const char* name;
  device::Isa needs;
  void (*multiply)(const PanelProduct& product);
  // One row of x into the units that `multiply` takes; k_padded - k zeros at the end.
  void (*prepare)(const float* x, int64_t k, int64_t k_padded, float* out);
  int64_t unit_k;    // k of one unit: 1 or 2
  bool takes_plain;  // rows of x serve as they are when k needs no padding
};

// The kernels of each instruction set.
extern const PanelKernel kAvx2F32, kAvx2Bf16, kAvx2F8;
extern const PanelKernel kAvx512F32, kAvx512Bf16, kAvx512F8;
extern const PanelKernel kAvx512DotBf16, kAvx512DotF8;  // vdpbf16ps
extern const PanelKernel kAmxBf16, kAmxF8;

// k that a kernel runs over: what lies between is zero on both sides.
constexpr int64_t prepared_k(const PanelKernel& kernel, int64_t k) {
  const int64_t step = kernel.unit_k == 1 ? 4 : 32;
  return (k + step - 1) / step * step;
}

}  // namespace fathom::ops

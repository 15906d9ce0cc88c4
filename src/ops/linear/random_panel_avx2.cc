#include "ops/linear/random_panel_kernel.h"

namespace fathom::ops {
namespace {

#include "ops/linear/random_panel.h"

}  // namespace

void fill_random_panel_avx2(const RandomColumns& columns, device::DType dtype, int64_t rows, uint8_t* out) {
  fill_rows(columns, dtype, rows, out);
}

}  // namespace fathom::ops

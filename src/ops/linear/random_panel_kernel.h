// What fills a panel with random values. Plain data only: its files are built for several instruction sets.
#pragma once

#include <cstdint>

#include "device/dtype.h"

namespace fathom::ops {

// The columns of a panel: two key words each, and what a level (-510 .. 510) is multiplied by (F32 and BF16;
// FP8 takes the whole range of the format).
struct RandomColumns {
  uint32_t first[16], second[16];
  float unit;
};

// Fills `rows` 64-byte rows of a panel of F32, BF16 or F8E4M3 (layout.h), padding and all.
void fill_random_panel_avx2(const RandomColumns& columns, device::DType dtype, int64_t rows, uint8_t* out);

}  // namespace fathom::ops

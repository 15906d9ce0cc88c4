// The one launch of gate_product_and_sort() (cuda.h).
#pragma once

#include "ops/moe/cuda.h"

namespace fathom::ops::cuda {

inline constexpr int kMostGateProductTokens = 16;

// False when the call is not for it: it takes up to kMostGateProductTokens rows of BF16, a parted weight of
// up to 256 rows and 8192 columns, on Hopper.
bool gate_product_sm90(device::cuda::Stream& stream, const LinearArgs& product, const GateArgs& gate,
                       const ExpertSortArgs& sort, uint64_t* workspace);

}  // namespace fathom::ops::cuda

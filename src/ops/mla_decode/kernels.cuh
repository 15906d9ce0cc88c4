// The kernels behind mla_decode's front door. All take at most kSplitTokens queries at a time.
#pragma once

#include "ops/mla_decode/cuda.h"
#include "ops/mla_decode/split.cuh"

namespace fathom::ops::cuda {

// Any heads; Dc and Dr multiples of 8; every dtype of cache; float32 arithmetic.
void mla_decode_portable(device::cuda::Stream& stream, const MlaDecodeArgs& args,
                         const SplitWorkspace& workspace);
int64_t mla_decode_portable_items(const device::cuda::Gpu& gpu, int64_t heads);  // wanted of a launch

}  // namespace fathom::ops::cuda

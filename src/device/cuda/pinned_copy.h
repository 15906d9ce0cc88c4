// Small copies between pinned host memory and the GPU's, between the kernels of a stream.
#pragma once

#include <cstddef>

#include "device/cuda/stream.h"

namespace fathom::device::cuda {

// As Stream::copy, in the stream's order, where one side is pinned (PinnedBuffer). Up to kMostByKernel bytes
// (whole words) a kernel reads or writes the host's memory: the copy engine takes longer to begin behind a
// kernel, and the next kernel behind it.
void copy_pinned(Stream& stream, void* to, const void* from, size_t bytes);

inline constexpr size_t kMostByKernel = size_t{64} << 10;

}  // namespace fathom::device::cuda

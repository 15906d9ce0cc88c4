// More than 48 KB of shared memory needs a word to the driver, once a kernel:
//   static const bool allowed = allow_shared_memory(stream, kernel, bytes);
#pragma once

#include "device/cuda/stream.h"

namespace fathom::device::cuda {

template <class Kernel>
bool allow_shared_memory(Stream& stream, Kernel* kernel, int bytes) {
  const cudaError_t status = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                  cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  stream.note(status, "shared memory");
  return status == cudaSuccess;
}

}  // namespace fathom::device::cuda

// More than 48 KB of shared memory needs a word to the driver, once for a kernel on each GPU:
//   static SharedMemory memory;
//   memory.allow(stream, kernel, bytes);
#pragma once

#include <array>
#include <atomic>

#include "device/cuda/stream.h"

namespace fathom::device::cuda {

// Of one kernel. Thread safe.
class SharedMemory {
 public:
  template <class Kernel>
  bool allow(Stream& stream, Kernel* kernel, int bytes) {
    std::atomic<bool>& allowed = allowed_.at(static_cast<size_t>(stream.gpu().index));
    if (allowed.load(std::memory_order_relaxed)) return true;
    const cudaError_t status = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                    cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    stream.note(status, "shared memory");
    if (status == cudaSuccess) allowed.store(true, std::memory_order_relaxed);
    return status == cudaSuccess;
  }

 private:
  std::array<std::atomic<bool>, 64> allowed_{};  // by GPU
};

}  // namespace fathom::device::cuda

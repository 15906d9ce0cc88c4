// The NVIDIA GPUs of this machine, and how a call's failure becomes an error. Built only with CUDA; on a
// machine without a driver gpu_count() is 0 and nothing else here may be called.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>

#include "base/result.h"

namespace fathom::device::cuda {

struct Gpu {
  int index = 0;
  std::string name;
  int major = 0, minor = 0;            // compute capability
  int multiprocessors = 0;             // SMs
  int64_t shared_bytes_per_block = 0;  // the opt-in limit
  int64_t l2_bytes = 0;
  int64_t total_bytes = 0;
  // As if it were an older one: FATHOM_PORTABLE_KERNELS=1, to test what other GPUs run.
  bool portable = false;
  // Several ranks use it (tests alone). Then what waits for another rank must leave room for what that rank
  // still has to run: no kernel begins while the one ahead of it runs (device/cuda/launch_kernel.h), and
  // none beside it (device/cuda/branch.h). A group of ranks keeps the blocks that wait few by itself.
  bool shared = false;

  // The kernels written for sm_90a can run.
  bool hopper() const { return major == 9 && minor == 0 && !portable; }
};

// 0 where there is no driver, no GPU, or none that this build has code for (sm_80 and later).
int gpu_count();

// Makes the GPU current for the calling thread and reads its properties, and FATHOM_PORTABLE_KERNELS.
Result<Gpu> open_gpu(int index);

// Free and total bytes of the current GPU.
struct MemoryInfo {
  int64_t free = 0, total = 0;
};
Result<MemoryInfo> memory_info();

// Ok for cudaSuccess; else kInternal ("<what>: <CUDA's words>"), or kUnavailable when memory ran out.
Result<void> check(cudaError_t status, const char* what);

}  // namespace fathom::device::cuda

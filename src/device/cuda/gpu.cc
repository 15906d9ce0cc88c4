#include "device/cuda/gpu.h"

#include <cstdlib>

namespace fathom::device::cuda {

Result<void> check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return {};
  const ErrorCode code = status == cudaErrorMemoryAllocation ? ErrorCode::kUnavailable : ErrorCode::kInternal;
  return error(code, "{}: {} ({})", what, cudaGetErrorString(status), cudaGetErrorName(status));
}

int gpu_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();  // "no driver" must not come back from the next call
    return 0;
  }
  for (int i = 0; i < count; ++i) {
    int major = 0;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, i) != cudaSuccess || major < 8)
      return i;
  }
  return count;
}

Result<Gpu> open_gpu(int index) {
  FATHOM_TRY(check(cudaSetDevice(index), "cudaSetDevice"));
  cudaDeviceProp properties;
  FATHOM_TRY(check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties"));
  Gpu gpu;
  gpu.index = index;
  gpu.name = properties.name;
  gpu.major = properties.major;
  gpu.minor = properties.minor;
  gpu.multiprocessors = properties.multiProcessorCount;
  gpu.shared_bytes_per_block = static_cast<int64_t>(properties.sharedMemPerBlockOptin);
  gpu.l2_bytes = properties.l2CacheSize;
  gpu.total_bytes = static_cast<int64_t>(properties.totalGlobalMem);
  const char* portable = std::getenv("FATHOM_PORTABLE_KERNELS");
  gpu.portable = portable != nullptr && *portable == '1';
  return gpu;
}

Result<MemoryInfo> memory_info() {
  size_t free = 0;
  size_t total = 0;
  FATHOM_TRY(check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo"));
  return MemoryInfo{static_cast<int64_t>(free), static_cast<int64_t>(total)};
}

}  // namespace fathom::device::cuda

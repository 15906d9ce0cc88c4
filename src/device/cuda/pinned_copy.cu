#include "device/cuda/pinned_copy.h"

#include <cstdint>

namespace fathom::device::cuda {
namespace {

constexpr unsigned kThreads = 256;

// Words of T.
template <class T>
__global__ void pinned_copy_kernel(T* to, const T* from, unsigned count) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  if (i < count) to[i] = __ldcv(from + i);  // nothing that an earlier copy left in a cache
}

template <class T>
void launch(Stream& stream, void* to, const void* from, size_t bytes) {
  const auto count = static_cast<unsigned>(bytes / sizeof(T));
  pinned_copy_kernel<<<(count + kThreads - 1) / kThreads, kThreads, 0, stream.handle()>>>(
      static_cast<T*>(to), static_cast<const T*>(from), count);
  stream.launched("pinned copy");
}

}  // namespace

void copy_pinned(Stream& stream, void* to, const void* from, size_t bytes) {
  const auto aligned = [&](size_t to_bytes) {
    return (reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from) | bytes) % to_bytes == 0;
  };
  if (bytes == 0) return;
  if (bytes > kMostByKernel || !aligned(4)) return stream.copy(to, from, bytes);
  aligned(16) ? launch<uint4>(stream, to, from, bytes) : launch<uint32_t>(stream, to, from, bytes);
}

}  // namespace fathom::device::cuda

// Launches that may begin before the one ahead of them has ended (programmatic dependent launch, sm_90): a
// kernel launched so brings what it can bring by itself (weights), then calls wait_for_previous() before it
// touches anything that an earlier kernel of the stream writes or reads. Older GPUs run one after another.
#pragma once

#include "device/cuda/stream.h"

namespace fathom::device::cuda {

#ifdef __CUDACC__
// Everything that earlier kernels of the stream wrote is there, and none of them reads any more.
__device__ inline void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// The kernel behind this one may start, as multiprocessors have room for it.
__device__ inline void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// `cluster`: CTAs of the grid's first dimension that are one.
template <class... Parameters, class... Arguments>
void launch_early_clusters(Stream& stream, void (*kernel)(Parameters...), unsigned cluster, dim3 grid,
                           dim3 block, int shared_bytes, const Arguments&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream.handle();
  cudaLaunchAttribute attributes[2] = {};
  config.attrs = attributes;
  const auto next = [&](cudaLaunchAttributeID id) -> cudaLaunchAttributeValue& {
    attributes[config.numAttrs].id = id;
    return attributes[config.numAttrs++].val;
  };
  if (stream.gpu().major >= 9 && !stream.gpu().shared)
    next(cudaLaunchAttributeProgrammaticStreamSerialization).programmaticStreamSerializationAllowed = 1;
  if (cluster > 1) {
    auto& size = next(cudaLaunchAttributeClusterDimension).clusterDim;
    size.x = cluster;
    size.y = size.z = 1;
  }
  stream.note(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...), "early launch");
}
template <class... Parameters, class... Arguments>
void launch_early(Stream& stream, void (*kernel)(Parameters...), dim3 grid, dim3 block, int shared_bytes,
                  const Arguments&... arguments) {
  launch_early_clusters(stream, kernel, 1, grid, block, shared_bytes, arguments...);
}
#endif

}  // namespace fathom::device::cuda

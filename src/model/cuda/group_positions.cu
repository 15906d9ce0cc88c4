#include "model/cuda/group_positions.h"

#include "device/cuda/launch_kernel.h"

namespace fathom::model::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void group_positions_kernel(const int32_t* positions, int64_t tokens, int64_t places, int32_t* y) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();

  const int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (i < places) y[i] = i < tokens ? positions[i] : -1;
}

}  // namespace

void group_positions(device::cuda::Stream& stream, const int32_t* positions, int64_t tokens, int64_t places,
                     int32_t* y) {
  device::cuda::launch_early(stream, group_positions_kernel,
                             static_cast<unsigned>((places + kThreads - 1) / kThreads), kThreads, 0,
                             positions, tokens, places, y);
  stream.launched("group_positions");
}

}  // namespace fathom::model::cuda

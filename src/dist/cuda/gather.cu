#include <algorithm>

#include "base/math.h"
#include "device/cuda/launch_kernel.h"
#include "dist/cuda/kernels.h"
#include "dist/cuda/peers.cuh"

namespace fathom::dist::cuda {
namespace {

constexpr int kThreads = 512;

// Rows of `width` items of type T, `stride` items apart, from this rank to the same places on all others.
template <class T>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(PeerView peers, Everywhere to, int64_t rows, int64_t width, int64_t stride) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();

  const uint32_t meeting = peers.progress->meetings + 1;
  meet(peers, 0, meeting, Op::kGather);
  const auto* mine = static_cast<const T*>(to.at[peers.rank]);
  const int64_t count = rows * width;
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count; i += step) {
    const int64_t at = i / width * stride + i % width;
    const T item = mine[at];
    for (int r = 0; r < peers.size; ++r) {
      if (r != peers.rank) static_cast<T*>(to.at[r])[at] = item;
    }
  }
  meet(peers, 1, meeting, Op::kGather);
  when_last(peers, [&](Progress& progress) { progress.meetings = meeting; });
}

}  // namespace

void gather_parts(device::cuda::Stream& stream, const PeerView& peers, const ops::cuda::Matrix& part,
                  const Everywhere& to, int64_t most) {
  const int64_t size = device::size_of(part.dtype);
  // As many blocks on every rank, whatever its part is.
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(
      ceil_div<int64_t>(most * size, 2 * kThreads * int64_t{sizeof(uint4)}), peers.most_blocks));
  const auto launch = [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    const int64_t each = static_cast<int64_t>(sizeof(T)) / size;
    const int64_t width = part.columns / each;
    device::cuda::launch_early(stream, gather_kernel<T>, blocks, kThreads, 0, peers, to, part.rows, width,
                               part.stride / each);
  };
  const auto whole = [&](int64_t bytes) {
    return part.columns * size % bytes == 0 && part.stride * size % bytes == 0 &&
           reinterpret_cast<uintptr_t>(part.data) % static_cast<uintptr_t>(bytes) == 0;
  };
  if (whole(16)) {
    launch(static_cast<uint4*>(nullptr));
  } else if (whole(4)) {
    launch(static_cast<uint32_t*>(nullptr));
  } else {
    FATHOM_CHECK(size == 2, "a gather of {}", device::to_string(part.dtype));
    launch(static_cast<uint16_t*>(nullptr));
  }
  stream.launched("gather");
}

}  // namespace fathom::dist::cuda

#include "device/cuda/launch_kernel.h"
#include "ops/rope/cuda.h"
#include "ops/rope/rotate.cuh"
#include "ops/vector/cuda.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kThreads = 128;

// A thread a part of eight: CTAs (t, b) of token t.
template <bool kVectors, class X, class Y>
__global__ void rope_kernel(HeadsView<X, Y> view, RopeView table, const int32_t* positions) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();

  const int64_t position = positions[blockIdx.x];
  if (position < 0) return;
  const int64_t i = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
  rotate_part<kVectors>(view, table, blockIdx.x, position, i);
}

}  // namespace

void rope(device::cuda::Stream& stream, const RopeArgs& args) {
  check_rope(args);
  if (args.x.rows == 0) return;
  const int64_t parts = args.heads * parts_of(2 * args.table.half);
  const dim3 grid(static_cast<unsigned>(args.x.rows),
                  static_cast<unsigned>((parts + kThreads - 1) / kThreads));
  with_flag(takes_parts(args), [&](auto flag) {
    with_activation_type(args.x.dtype, "x", [&](auto* x_null) {
      with_activation_type(args.y.dtype, "y", [&](auto* y_null) {
        using X = std::remove_pointer_t<decltype(x_null)>;
        using Y = std::remove_pointer_t<decltype(y_null)>;
        device::cuda::launch_early(stream, rope_kernel<decltype(flag)::value, X, Y>, grid, kThreads, 0,
                                   heads_view<X, Y>(args), args.table, args.positions);
      });
    });
  });
  stream.launched("rope");
}

}  // namespace fathom::ops::cuda

#include "base/check.h"
#include "device/cuda/launch_kernel.h"
#include "ops/gather_rows/cuda.h"

namespace fathom::ops::cuda {
namespace {

// One row a block, 16 bytes a thread and turn.
__global__ void gather_kernel(const uint8_t* x, uint8_t* y, int64_t x_stride, int64_t y_stride, int64_t bytes,
                              const int32_t* ids, const int32_t* to, const int32_t* count) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();

  if (count != nullptr && static_cast<int32_t>(blockIdx.x) >= *count) return;
  const int32_t from = ids[blockIdx.x];
  const int64_t at = to != nullptr ? to[blockIdx.x] : static_cast<int32_t>(blockIdx.x);
  if (from < 0 || at < 0) return;
  const auto* in = reinterpret_cast<const uint4*>(x + from * x_stride);
  auto* out = reinterpret_cast<uint4*>(y + at * y_stride);
  for (int64_t i = threadIdx.x; i < bytes / 16; i += blockDim.x) out[i] = in[i];
}

}  // namespace

void gather_rows(device::cuda::Stream& stream, const GatherRowsArgs& args) {
  const int64_t size = device::size_of(args.x.dtype);
  FATHOM_CHECK(args.x.dtype == args.y.dtype && args.x.columns == args.y.columns &&
                   args.x.columns * size % 16 == 0 && args.x.stride * size % 16 == 0 &&
                   args.y.stride * size % 16 == 0,
               "x {} columns stride {}, y {} columns stride {}", args.x.columns, args.x.stride,
               args.y.columns, args.y.stride);
  if (args.y.rows == 0) return;
  const int64_t bytes = args.x.columns * size;
  const unsigned threads = bytes >= 4096 ? 256 : bytes >= 1024 ? 64 : 32;
  device::cuda::launch_early(stream, gather_kernel, static_cast<unsigned>(args.y.rows), threads, 0,
                             static_cast<const uint8_t*>(args.x.data), static_cast<uint8_t*>(args.y.data),
                             args.x.stride * size, args.y.stride * size, bytes, args.ids, args.to,
                             args.count);
  stream.launched("gather rows");
}

}  // namespace fathom::ops::cuda

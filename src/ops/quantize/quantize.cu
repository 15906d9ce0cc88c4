#include <algorithm>

#include "device/cuda/launch_kernel.h"
#include "ops/quantize/block.cuh"
#include "ops/quantize/cuda.h"

namespace fathom::ops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kBlocksPerMultiprocessor = 8;
constexpr unsigned kFewBlocks = 16;

// A thread eight columns at a time; blocks of 128 columns lie in halves of a warp.
template <bool kVectors, class X>
__global__ void quantize_kernel(const X* x, int64_t stride, QuantizedMatrix y, const int32_t* valid_rows,
                                int64_t parts) {
  device::cuda::let_next_start();
  const auto step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  // Few blocks wait for the kernel ahead, and go through it once for nothing: what runs but once waits for
  // its instructions.
#pragma unroll 1
  for (int pass = gridDim.x <= kFewBlocks ? 0 : 1; pass < 2; ++pass) {
    int64_t rows = 0;
    if (pass > 0) {
      device::cuda::wait_for_previous();
      rows = valid_rows != nullptr ? min(y.rows, static_cast<int64_t>(*valid_rows)) : y.rows;
    }
    // Whole warps go round together: `parts` and the step are multiples of sixteen, the end is not.
    const int64_t end = pass == 0 ? step : (rows * parts + 31) / 32 * 32;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < end; i += step) {
      const bool inside = i < rows * parts;
      const int64_t row = inside ? static_cast<uint32_t>(i) / static_cast<uint32_t>(parts) : 0;
      const int64_t first = inside ? i - row * parts : parts;  // past the end: not stored
      const Floats part = load_part<kVectors>(x + row * stride, first * kPart, y.columns);
      quantize_part<kVectors>(row_of(y, row), first * kPart, y.columns, part);
    }
  }
}

// A row a CTA.
__global__ void gather_kernel(QuantizedMatrix x, QuantizedMatrix y, const int32_t* ids,
                              const int32_t* valid_rows) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();

  const int64_t row = blockIdx.x;
  if (valid_rows != nullptr && row >= *valid_rows) return;
  const int64_t from = ids[row];
  const auto* in = reinterpret_cast<const uint4*>(x.values + from * x.stride);
  auto* out = reinterpret_cast<uint4*>(y.values + row * y.stride);
  for (int64_t i = threadIdx.x; i < (x.columns + 15) / 16; i += blockDim.x) out[i] = in[i];
  for (int64_t i = threadIdx.x; i < (x.columns + kQuantizeBlock - 1) / kQuantizeBlock; i += blockDim.x)
    y.scales[i * y.scale_stride + row] = x.scales[i * x.scale_stride + from];
}

void check_layout(const QuantizedMatrix& m) {
  FATHOM_CHECK(m.stride % 16 == 0 && m.stride >= m.columns && m.scale_stride >= m.rows &&
                   reinterpret_cast<uintptr_t>(m.values) % 16 == 0,
               "{} rows of {} columns, {} bytes apart, scales of {} rows", m.rows, m.columns, m.stride,
               m.scale_stride);
}

}  // namespace

void quantize(device::cuda::Stream& stream, const QuantizeArgs& args) {
  const Matrix& x = args.x;
  const QuantizedMatrix& y = args.y;
  FATHOM_CHECK(x.rows == y.rows && x.columns == y.columns, "y [{}, {}] of x [{}, {}]", y.rows, y.columns,
               x.rows, x.columns);
  check_layout(y);
  if (x.rows == 0 || x.columns == 0) return;
  // Rows of whole blocks, so that half a warp never holds two rows.
  const int64_t parts = (x.columns + kQuantizeBlock - 1) / kQuantizeBlock * (kQuantizeBlock / kPart);
  FATHOM_CHECK(x.rows * parts < int64_t{1} << 32, "{} rows of {} columns", x.rows, x.columns);
  const int64_t blocks = std::min((x.rows * parts + kThreads - 1) / kThreads,
                                  stream.gpu().multiprocessors * kBlocksPerMultiprocessor);
  with_flag(takes_parts(x), [&](auto flag) {
    with_activation_type(x.dtype, "x", [&](auto* null) {
      using X = std::remove_pointer_t<decltype(null)>;
      device::cuda::launch_early(stream, quantize_kernel<decltype(flag)::value, X>,
                                 static_cast<unsigned>(blocks), kThreads, 0, static_cast<const X*>(x.data),
                                 x.stride, y, args.rows, parts);
    });
  });
  stream.launched("quantize");
}

void gather_quantized(device::cuda::Stream& stream, const GatherQuantizedArgs& args) {
  FATHOM_CHECK(args.x.columns == args.y.columns, "y {} columns of x {}", args.y.columns, args.x.columns);
  check_layout(args.x);
  check_layout(args.y);
  if (args.y.rows == 0) return;
  device::cuda::launch_early(stream, gather_kernel, static_cast<unsigned>(args.y.rows), 256, 0, args.x,
                             args.y, args.ids, args.rows);
  stream.launched("gather quantized");
}

}  // namespace fathom::ops::cuda

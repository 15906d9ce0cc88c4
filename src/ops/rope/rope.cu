#include "ops/rope/cuda.h"
#include "ops/rope/rotate.cuh"
#include "ops/vector/cuda.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kThreads = 128;

// A thread a part of eight: CTAs (t, b) of token t.
template <bool kVectors, class X, class Y>
__global__ void rope_kernel(const X* x, int64_t x_stride, int64_t heads, int64_t width, Y* y,
                            int64_t y_stride, int64_t y_head_stride, int64_t y_offset,
                            const int32_t* positions, RopeView table) {
  const int64_t position = positions[blockIdx.x];
  if (position < 0) return;
  const int64_t parts = parts_of(2 * table.half);
  const int64_t i = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
  const int64_t head = i / parts;
  if (head >= heads) return;
  const int64_t first = i % parts * kPart;
  const X* from = x + blockIdx.x * x_stride + head * width + width - 2 * table.half;
  Y* to = y + blockIdx.x * y_stride + head * y_head_stride + y_offset;
  const Floats values = load_part<kVectors>(from, first, 2 * table.half);
  store_part<kVectors>(to, first, 2 * table.half, rotate<kVectors>(values, table, position, first));
}

}  // namespace

void rope(device::cuda::Stream& stream, const RopeArgs& args) {
  const Matrix& x = args.x;
  const Matrix& y = args.y;
  const int64_t rope = 2 * args.table.half;
  FATHOM_CHECK(args.heads > 0 && rope > 0 && args.width >= rope && x.columns == args.heads * args.width,
               "x [{}, {}] of {} heads of {}, {} rotated", x.rows, x.columns, args.heads, args.width, rope);
  FATHOM_CHECK(y.rows == x.rows && args.y_offset >= 0 && args.y_head_stride >= rope &&
                   (args.heads - 1) * args.y_head_stride + args.y_offset + rope <= y.columns,
               "{} heads {} apart at {} do not fit y [{}, {}] of x [{}, {}]", args.heads, args.y_head_stride,
               args.y_offset, y.rows, y.columns, x.rows, x.columns);
  if (x.rows == 0) return;
  const auto aligned = [rope](const Matrix& m, int64_t head_stride, int64_t offset) {
    const int64_t size = device::size_of(m.dtype);
    return takes_parts(m.data, size, rope, m.stride) && takes_parts(nullptr, size, rope, head_stride) &&
           takes_parts(nullptr, size, rope, offset);
  };
  const bool vectors = takes_parts(args.table) && aligned(x, args.width, args.width - rope) &&
                       aligned(y, args.y_head_stride, args.y_offset);
  const dim3 grid(static_cast<unsigned>(x.rows),
                  static_cast<unsigned>((args.heads * parts_of(rope) + kThreads - 1) / kThreads));
  with_flag(vectors, [&](auto flag) {
    with_activation_type(x.dtype, "x", [&](auto* x_null) {
      with_activation_type(y.dtype, "y", [&](auto* y_null) {
        using X = std::remove_pointer_t<decltype(x_null)>;
        using Y = std::remove_pointer_t<decltype(y_null)>;
        rope_kernel<decltype(flag)::value, X, Y><<<grid, kThreads, 0, stream.handle()>>>(
            static_cast<const X*>(x.data), x.stride, args.heads, args.width, static_cast<Y*>(y.data),
            y.stride, args.y_head_stride, args.y_offset, args.positions, args.table);
      });
    });
  });
  stream.launched("rope");
}

}  // namespace fathom::ops::cuda

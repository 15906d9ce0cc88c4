// Rotation of a part of a head's rope dimensions, shared by the kernels that fuse it.
#pragma once

#include "ops/rope/cuda.h"
#include "ops/vector/cuda.cuh"

namespace fathom::ops::cuda {

// `first` is even: pairs first / 2 .. first / 2 + 3 of the head, at a row of the table. Pairs beyond `half`
// stay as they are.
template <bool kVectors>
__device__ Floats rotate(const Floats& x, const RopeView& table, int64_t position, int64_t first) {
  const int64_t at = position * table.half + first / 2;
  float cos[kPart / 2], sin[kPart / 2];
  if constexpr (kVectors) {
    *reinterpret_cast<float4*>(cos) = *reinterpret_cast<const float4*>(table.cos + at);
    *reinterpret_cast<float4*>(sin) = *reinterpret_cast<const float4*>(table.sin + at);
  } else {
#pragma unroll
    for (int i = 0; i < kPart / 2; ++i) {
      const bool inside = first / 2 + i < table.half;
      cos[i] = inside ? table.cos[at + i] : 1.0F;
      sin[i] = inside ? table.sin[at + i] : 0.0F;
    }
  }
  Floats y;
#pragma unroll
  for (int i = 0; i < kPart / 2; ++i) {
    const float a = x.v[2 * i], b = x.v[2 * i + 1];
    y.v[2 * i] = fmaf(a, cos[i], -__fmul_rn(b, sin[i]));
    y.v[2 * i + 1] = fmaf(a, sin[i], __fmul_rn(b, cos[i]));
  }
  return y;
}

// What rotates the heads of a batch, as kernels take it.
template <class X, class Y>
struct HeadsView {
  const X* x;
  int64_t x_stride, heads, width;
  Y* y;
  int64_t y_stride, y_head_stride, y_offset;
};

// Part i of token t's heads: parts of one head come after those of the one before.
template <bool kVectors, class X, class Y>
__device__ void rotate_part(const HeadsView<X, Y>& view, const RopeView& table, int64_t t, int64_t position,
                            int64_t i) {
  const int64_t rope = 2 * table.half;
  const int64_t parts = parts_of(rope);
  const int64_t head = i / parts;
  if (head >= view.heads) return;
  const int64_t first = i % parts * kPart;
  const X* from = view.x + t * view.x_stride + head * view.width + view.width - rope;
  Y* to = view.y + t * view.y_stride + head * view.y_head_stride + view.y_offset;
  const Floats values = load_part<kVectors>(from, first, rope);
  store_part<kVectors>(to, first, rope, rotate<kVectors>(values, table, position, first));
}

// CHECKs the shapes.
inline void check_rope(const RopeArgs& args) {
  const Matrix& x = args.x;
  const Matrix& y = args.y;
  const int64_t rope = 2 * args.table.half;
  FATHOM_CHECK(args.heads > 0 && rope > 0 && args.width >= rope && x.columns == args.heads * args.width,
               "x [{}, {}] of {} heads of {}, {} rotated", x.rows, x.columns, args.heads, args.width, rope);
  FATHOM_CHECK(y.rows == x.rows && args.y_offset >= 0 && args.y_head_stride >= rope &&
                   (args.heads - 1) * args.y_head_stride + args.y_offset + rope <= y.columns,
               "{} heads {} apart at {} do not fit y [{}, {}] of x [{}, {}]", args.heads, args.y_head_stride,
               args.y_offset, y.rows, y.columns, x.rows, x.columns);
}

template <class X, class Y>
HeadsView<X, Y> heads_view(const RopeArgs& args) {
  return {static_cast<const X*>(args.x.data), args.x.stride, args.heads,         args.width,
          static_cast<Y*>(args.y.data),       args.y.stride, args.y_head_stride, args.y_offset};
}

inline bool takes_parts(const RopeView& table) {
  return table.half % 4 == 0 && reinterpret_cast<uintptr_t>(table.cos) % 16 == 0 &&
         reinterpret_cast<uintptr_t>(table.sin) % 16 == 0;
}

inline bool takes_parts(const RopeArgs& args) {
  const int64_t rope = 2 * args.table.half;
  const auto aligned = [rope](const Matrix& m, int64_t head_stride, int64_t offset) {
    const int64_t size = device::size_of(m.dtype);
    return takes_parts(m.data, size, rope, m.stride) && takes_parts(nullptr, size, rope, head_stride) &&
           takes_parts(nullptr, size, rope, offset);
  };
  return takes_parts(args.table) && aligned(args.x, args.width, args.width - rope) &&
         aligned(args.y, args.y_head_stride, args.y_offset);
}

}  // namespace fathom::ops::cuda

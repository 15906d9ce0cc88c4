#include "device/cuda/launch_kernel.h"
#include "ops/rms_norm/cuda.h"
#include "ops/rms_norm/row.cuh"

namespace fathom::ops::cuda {
namespace {

// A CTA a row, which stays in registers between the sum and the scaling.
template <int kParts, bool kVectors, class X, class D, class Y>
__global__ void __launch_bounds__(norm_threads(kParts))
    rms_norm_kernel(X* x, int64_t x_stride, const D* delta, int64_t delta_stride, const float* weight,
                    float eps, int64_t width, Y* y, int64_t y_stride, QuantizedMatrix rounded) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();

  __shared__ float shared[32];
  X* x_row = x + blockIdx.x * x_stride;
  Floats values[kParts];
#pragma unroll
  for (int p = 0; p < kParts; ++p) {
    const int64_t first = (p * static_cast<int64_t>(blockDim.x) + threadIdx.x) * kPart;
    values[p] = load_part<kVectors>(x_row, first, width);
  }
  if (delta != nullptr) {
    const D* delta_row = delta + blockIdx.x * delta_stride;
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      const int64_t first = (p * static_cast<int64_t>(blockDim.x) + threadIdx.x) * kPart;
      const Floats added = load_part<kVectors>(delta_row, first, width);
#pragma unroll
      for (int i = 0; i < kPart; ++i) values[p].v[i] += added.v[i];
      store_part<kVectors>(x_row, first, width, values[p]);
    }
  }
  norm_row<kParts, kVectors>(values, weight, eps, width, y + blockIdx.x * y_stride,
                             row_of(rounded, blockIdx.x), shared);
}

void launch(device::cuda::Stream& stream, const Matrix& x, const Matrix& delta, const float* weight,
            float eps, const Matrix& y, const QuantizedMatrix& rounded) {
  const int64_t width = x.columns;
  FATHOM_CHECK(y.rows == x.rows && y.columns == width, "y [{}, {}] of x [{}, {}]", y.rows, y.columns, x.rows,
               width);
  FATHOM_CHECK(0 < width && width <= kMostNormWidth, "width {} is not in 1 .. {}", width, kMostNormWidth);
  FATHOM_CHECK(delta.data == nullptr || (delta.rows == x.rows && delta.columns == width),
               "delta [{}, {}] of x [{}, {}]", delta.rows, delta.columns, x.rows, width);
  FATHOM_CHECK(rounded.values == nullptr || (rounded.rows == x.rows && rounded.columns == width),
               "rounded [{}, {}] of x [{}, {}]", rounded.rows, rounded.columns, x.rows, width);
  if (x.rows == 0) return;
  const bool vectors = (rounded.values == nullptr || rounded.stride % 16 == 0) && takes_parts(x) &&
                       takes_parts(y) && takes_parts(weight, sizeof(float), width, 0) &&
                       (delta.data == nullptr || takes_parts(delta));
  const int parts = norm_parts(width);
  const unsigned threads = norm_block(width);
  const auto run = [&](auto parts_constant, auto flag, auto* x_null, auto* delta_null, auto* y_null) {
    using X = std::remove_pointer_t<decltype(x_null)>;
    using D = std::remove_pointer_t<decltype(delta_null)>;
    using Y = std::remove_pointer_t<decltype(y_null)>;
    device::cuda::launch_early(
        stream, rms_norm_kernel<decltype(parts_constant)::value, decltype(flag)::value, X, D, Y>,
        static_cast<unsigned>(x.rows), threads, 0, static_cast<X*>(x.data), x.stride,
        static_cast<const D*>(delta.data), delta.stride, weight, eps, width, static_cast<Y*>(y.data),
        y.stride, rounded);
  };
  const auto run_types = [&](auto parts_constant, auto flag) {
    with_activation_type(y.dtype, "y", [&](auto* y_null) {
      if (delta.data != nullptr) {  // x is then the float32 residual
        with_activation_type(delta.dtype, "delta", [&](auto* delta_null) {
          run(parts_constant, flag, static_cast<float*>(nullptr), delta_null, y_null);
        });
      } else {
        with_activation_type(x.dtype, "x", [&](auto* x_null) {
          run(parts_constant, flag, x_null, static_cast<float*>(nullptr), y_null);
        });
      }
    });
  };
  with_flag(vectors, [&](auto flag) {
    switch (parts) {
      case 1:
        return run_types(std::integral_constant<int, 1>{}, flag);
      case 2:
        return run_types(std::integral_constant<int, 2>{}, flag);
      default:
        return run_types(std::integral_constant<int, 4>{}, flag);
    }
  });
}

}  // namespace

void add_rms_norm(device::cuda::Stream& stream, const AddRmsNormArgs& args) {
  const Matrix residual(args.residual, device::DType::kF32, args.y.rows, args.y.columns);
  launch(stream, residual, args.delta, args.weight, args.eps, args.y, args.rounded);
  stream.launched("add_rms_norm");
}

void rms_norm(device::cuda::Stream& stream, const RmsNormArgs& args) {
  launch(stream, args.x, {}, args.weight, args.eps, args.y, args.rounded);
  stream.launched("rms_norm");
}

}  // namespace fathom::ops::cuda

#include "ops/rms_norm/cuda.h"
#include "ops/rms_norm/kernel.cuh"

namespace fathom::ops::cuda {
namespace {

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
  if (vectors && norm_by_clusters(stream, x, delta, weight, eps, y, rounded)) return;
  const int parts = norm_parts(width);
  const auto run = [&](auto parts_constant, auto flag, auto* x_null, auto* delta_null, auto* y_null) {
    using X = std::remove_pointer_t<decltype(x_null)>;
    using D = std::remove_pointer_t<decltype(delta_null)>;
    using Y = std::remove_pointer_t<decltype(y_null)>;
    constexpr int kParts = decltype(parts_constant)::value;
    launch_norm<kParts, decltype(flag)::value, BlockRow<kParts>, X, D, Y>(stream, x, delta, weight, eps, y,
                                                                          rounded, 1, norm_block(width));
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

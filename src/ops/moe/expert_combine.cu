#include "device/cuda/launch_kernel.h"
#include "ops/moe/cuda.h"
#include "ops/vector/cuda.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kThreads = 128;

// CTAs (t, b) of token t, a thread eight columns. kTopK == 0: top_k is known at run time only.
template <int kTopK, bool kVectors, class X, class S, class Y>
__global__ void expert_combine_kernel(const X* rows, int64_t stride, const float* weights,
                                      const int32_t* places, const int32_t* positions, int32_t top_k,
                                      const S* shared, int64_t shared_stride, Y* y, int64_t y_stride,
                                      int64_t width) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();

  const int64_t t = blockIdx.x;
  if (positions != nullptr && positions[t] < 0) return;
  const int64_t first = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * kPart;
  if (first >= width) return;
  Floats sum{};
  const auto add = [&](const Floats& row, float weight) {
#pragma unroll
    for (int i = 0; i < kPart; ++i) sum.v[i] = fmaf(weight, row.v[i], sum.v[i]);
  };
  if constexpr (kTopK > 0) {
    Floats loaded[kTopK];  // all on their way before the first is used
#pragma unroll
    for (int k = 0; k < kTopK; ++k) {
      const int32_t place = places[t * kTopK + k];
      if (place >= 0) loaded[k] = load_part<kVectors>(rows + place * stride, first, width);
    }
#pragma unroll
    for (int k = 0; k < kTopK; ++k) {
      if (places[t * kTopK + k] >= 0) add(loaded[k], weights[t * kTopK + k]);
    }
  } else {
    for (int32_t k = 0; k < top_k; ++k) {
      const int32_t place = places[t * top_k + k];
      if (place >= 0) add(load_part<kVectors>(rows + place * stride, first, width), weights[t * top_k + k]);
    }
  }
  if (shared != nullptr) {
    const Floats added = load_part<kVectors>(shared + t * shared_stride, first, width);
#pragma unroll
    for (int i = 0; i < kPart; ++i) sum.v[i] += added.v[i];
  }
  store_part<kVectors>(y + t * y_stride, first, width, sum);
}

}  // namespace

void expert_combine(device::cuda::Stream& stream, const ExpertCombineArgs& args) {
  const Matrix& y = args.y;
  FATHOM_CHECK(args.top_k > 0 && args.rows.rows >= y.rows * args.top_k && args.rows.columns == y.columns,
               "rows [{}, {}] for y [{}, {}], top {}", args.rows.rows, args.rows.columns, y.rows, y.columns,
               args.top_k);
  FATHOM_CHECK(
      args.shared.data == nullptr || (args.shared.rows == y.rows && args.shared.columns == y.columns),
      "shared [{}, {}] for y [{}, {}]", args.shared.rows, args.shared.columns, y.rows, y.columns);
  if (y.rows == 0) return;
  const bool vectors =
      takes_parts(args.rows) && takes_parts(y) && (args.shared.data == nullptr || takes_parts(args.shared));
  const device::DType shared_dtype = args.shared.data == nullptr ? device::DType::kF32 : args.shared.dtype;
  const dim3 grid(static_cast<unsigned>(y.rows),
                  static_cast<unsigned>((parts_of(y.columns) + kThreads - 1) / kThreads));
  const auto launch = [&](auto top_k, auto flag) {
    with_activation_type(args.rows.dtype, "rows", [&](auto* rows_null) {
      with_activation_type(shared_dtype, "shared", [&](auto* shared_null) {
        with_activation_type(y.dtype, "y", [&](auto* y_null) {
          using X = std::remove_pointer_t<decltype(rows_null)>;
          using S = std::remove_pointer_t<decltype(shared_null)>;
          using Y = std::remove_pointer_t<decltype(y_null)>;
          device::cuda::launch_early(
              stream, expert_combine_kernel<decltype(top_k)::value, decltype(flag)::value, X, S, Y>, grid,
              kThreads, 0, static_cast<const X*>(args.rows.data), args.rows.stride, args.weights, args.places,
              args.positions, args.top_k, static_cast<const S*>(args.shared.data), args.shared.stride,
              static_cast<Y*>(y.data), y.stride, y.columns);
        });
      });
    });
  };
  if (!vectors) {
    launch(std::integral_constant<int, 0>{}, std::false_type{});
  } else if (args.top_k == 6) {
    launch(std::integral_constant<int, 6>{}, std::true_type{});
  } else if (args.top_k == 8) {
    launch(std::integral_constant<int, 8>{}, std::true_type{});
  } else {
    launch(std::integral_constant<int, 0>{}, std::true_type{});
  }
  stream.launched("expert_combine");
}

}  // namespace fathom::ops::cuda

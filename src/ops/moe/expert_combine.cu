#include "device/cuda/launch_kernel.h"
#include "ops/moe/combine_norm.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kThreads = 128;

// CTAs (t, b) of token t, a thread eight columns.
template <int kTopK, bool kVectors, class X, class S, class Y>
__global__ void expert_combine_kernel(ExpertRows<X, S> experts, Y* y, int64_t y_stride, int64_t width) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();

  const int64_t t = blockIdx.x;
  if (experts.is_padding(t)) return;
  const int64_t first = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * kPart;
  if (first >= width) return;
  store_part<kVectors>(y + t * y_stride, first, width,
                       experts.template sum<kTopK, kVectors>(t, first, width));
}

void check(const ExpertCombineArgs& args, int64_t tokens, int64_t width) {
  FATHOM_CHECK(args.top_k > 0 && args.rows.rows >= tokens * args.top_k && args.rows.columns == width,
               "rows [{}, {}] for y [{}, {}], top {}", args.rows.rows, args.rows.columns, tokens, width,
               args.top_k);
  FATHOM_CHECK(args.shared.data == nullptr || (args.shared.rows == tokens && args.shared.columns == width),
               "shared [{}, {}] for y [{}, {}]", args.shared.rows, args.shared.columns, tokens, width);
}

// Calls launch(top_k, vectors) with constants.
template <class Launch>
void with_top_k(bool vectors, int32_t top_k, const Launch& launch) {
  if (!vectors) {
    launch(std::integral_constant<int, 0>{}, std::false_type{});
  } else if (top_k == 6) {
    launch(std::integral_constant<int, 6>{}, std::true_type{});
  } else if (top_k == 8) {
    launch(std::integral_constant<int, 8>{}, std::true_type{});
  } else {
    launch(std::integral_constant<int, 0>{}, std::true_type{});
  }
}

}  // namespace

void expert_combine(device::cuda::Stream& stream, const ExpertCombineArgs& args) {
  const Matrix& y = args.y;
  check(args, y.rows, y.columns);
  if (y.rows == 0) return;
  const device::DType shared_dtype = args.shared.data == nullptr ? device::DType::kF32 : args.shared.dtype;
  const dim3 grid(static_cast<unsigned>(y.rows),
                  static_cast<unsigned>((parts_of(y.columns) + kThreads - 1) / kThreads));
  with_top_k(takes_parts(args) && takes_parts(y), args.top_k, [&](auto top_k, auto flag) {
    with_activation_type(args.rows.dtype, "rows", [&](auto* rows_null) {
      with_activation_type(shared_dtype, "shared", [&](auto* shared_null) {
        with_activation_type(y.dtype, "y", [&](auto* y_null) {
          using X = std::remove_pointer_t<decltype(rows_null)>;
          using S = std::remove_pointer_t<decltype(shared_null)>;
          using Y = std::remove_pointer_t<decltype(y_null)>;
          device::cuda::launch_early(
              stream, expert_combine_kernel<decltype(top_k)::value, decltype(flag)::value, X, S, Y>, grid,
              kThreads, 0, ExpertRows<X, S>(args), static_cast<Y*>(y.data), y.stride, y.columns);
        });
      });
    });
  });
  stream.launched("expert_combine");
}

void expert_combine_norm(device::cuda::Stream& stream, const ExpertCombineArgs& args,
                         const AddRmsNormArgs& norm) {
  const Matrix& y = norm.y;
  const int64_t width = y.columns;
  check(args, y.rows, width);
  FATHOM_CHECK(norm.delta.data == nullptr && args.y.data == nullptr,
               "the experts' sum goes into the residual");
  FATHOM_CHECK(args.rows.dtype == y.dtype && (args.shared.data == nullptr || args.shared.dtype == y.dtype),
               "rows of another type than y's");
  FATHOM_CHECK(0 < width && width <= kMostNormWidth, "width {} is not in 1 .. {}", width, kMostNormWidth);
  FATHOM_CHECK(
      norm.rounded.values == nullptr || (norm.rounded.rows == y.rows && norm.rounded.columns == width),
      "rounded [{}, {}] of y [{}, {}]", norm.rounded.rows, norm.rounded.columns, y.rows, width);
  if (y.rows == 0) return;
  const bool vectors = (norm.rounded.values == nullptr || norm.rounded.stride % 16 == 0) &&
                       takes_parts(args) && takes_parts(y) &&
                       takes_parts(norm.weight, sizeof(float), width, 0) &&
                       takes_parts(norm.residual, sizeof(float), width, width);
  if (vectors && expert_combine_norm_clusters(stream, args, norm))
    return stream.launched("expert_combine_norm");
  with_top_k(vectors, args.top_k, [&](auto top_k, auto flag) {
    with_activation_type(y.dtype, "y", [&](auto* null) {
      using T = std::remove_pointer_t<decltype(null)>;
      const auto run = [&](auto parts) {
        constexpr int kParts = decltype(parts)::value;
        launch_combine_norm<decltype(top_k)::value, kParts, decltype(flag)::value, BlockRow<kParts>, T>(
            stream, args, norm, 1, norm_block(width));
      };
      switch (norm_parts(width)) {
        case 1:
          return run(std::integral_constant<int, 1>{});
        case 2:
          return run(std::integral_constant<int, 2>{});
        default:
          return run(std::integral_constant<int, 4>{});
      }
    });
  });
  stream.launched("expert_combine_norm");
}

}  // namespace fathom::ops::cuda

#include "device/cuda/launch_kernel.h"
#include "ops/moe/cuda.h"
#include "ops/rms_norm/row.cuh"
#include "ops/vector/cuda.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kThreads = 128;

template <class X, class S>
struct ExpertRows {
  const X* rows;
  int64_t stride;
  const float* weights;
  const int32_t* places;
  const int32_t* positions;
  int32_t top_k;
  const S* shared;
  int64_t shared_stride;

  explicit ExpertRows(const ExpertCombineArgs& args)
      : rows(static_cast<const X*>(args.rows.data)),
        stride(args.rows.stride),
        weights(args.weights),
        places(args.places),
        positions(args.positions),
        top_k(args.top_k),
        shared(static_cast<const S*>(args.shared.data)),
        shared_stride(args.shared.stride) {}

  __device__ bool is_padding(int64_t t) const { return positions != nullptr && positions[t] < 0; }

  // Token t's part at column `first`. kTopK == 0: top_k is known at run time only.
  template <int kTopK, bool kVectors>
  __device__ Floats sum(int64_t t, int64_t first, int64_t width) const {
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
    return sum;
  }
};

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

// A CTA a token.
template <int kTopK, int kParts, bool kVectors, class T>
__global__ void __launch_bounds__(norm_threads(kParts))
    expert_combine_norm_kernel(ExpertRows<T, T> experts, float* residual, const float* weight, float eps,
                               int64_t width, T* y, int64_t y_stride, QuantizedMatrix rounded) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();

  __shared__ float shared[32];
  const int64_t t = blockIdx.x;
  float* row = residual + t * width;
  Floats values[kParts];
#pragma unroll
  for (int p = 0; p < kParts; ++p) {
    const int64_t first = (p * static_cast<int64_t>(blockDim.x) + threadIdx.x) * kPart;
    values[p] = load_part<kVectors>(row, first, width);
    if (experts.is_padding(t) || first >= width) continue;
    const Floats added = experts.template sum<kTopK, kVectors>(t, first, width);
#pragma unroll
    for (int i = 0; i < kPart; ++i) values[p].v[i] += added.v[i];
    store_part<kVectors>(row, first, width, values[p]);
  }
  norm_row<kParts, kVectors>(values, weight, eps, width, y + t * y_stride, row_of(rounded, t), shared);
}

void check(const ExpertCombineArgs& args, int64_t tokens, int64_t width) {
  FATHOM_CHECK(args.top_k > 0 && args.rows.rows >= tokens * args.top_k && args.rows.columns == width,
               "rows [{}, {}] for y [{}, {}], top {}", args.rows.rows, args.rows.columns, tokens, width,
               args.top_k);
  FATHOM_CHECK(args.shared.data == nullptr || (args.shared.rows == tokens && args.shared.columns == width),
               "shared [{}, {}] for y [{}, {}]", args.shared.rows, args.shared.columns, tokens, width);
}

bool takes_parts(const ExpertCombineArgs& args) {
  return takes_parts(args.rows) && (args.shared.data == nullptr || takes_parts(args.shared));
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
  with_top_k(vectors, args.top_k, [&](auto top_k, auto flag) {
    with_activation_type(y.dtype, "y", [&](auto* null) {
      using T = std::remove_pointer_t<decltype(null)>;
      const auto run = [&](auto parts) {
        device::cuda::launch_early(stream,
                                   expert_combine_norm_kernel<decltype(top_k)::value, decltype(parts)::value,
                                                              decltype(flag)::value, T>,
                                   static_cast<unsigned>(y.rows), norm_block(width), 0,
                                   ExpertRows<T, T>(args), norm.residual, norm.weight, norm.eps, width,
                                   static_cast<T*>(y.data), y.stride, norm.rounded);
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

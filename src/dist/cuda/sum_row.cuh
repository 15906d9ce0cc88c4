// How a row of a sum is added and what is done with it then, and the kernels' types. Used by sums of GPUs,
// however the rows came.
#pragma once

#include "dist/cuda/gpu_group.h"
#include "ops/rms_norm/row.cuh"

namespace fathom::dist::cuda {

using ops::cuda::Floats;
using ops::cuda::kPart;

// values: the sum over the ranks, in their order, of the rows that row_of(rank) gives.
template <int kParts, class RowOf>
__device__ void add_in_order(Floats (&values)[kParts], int size, int64_t width, const RowOf& row_of) {
  for (int r = 0; r < size; ++r) {
    const auto* from = row_of(r);
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      const int64_t first = (p * static_cast<int64_t>(blockDim.x) + threadIdx.x) * kPart;
      const Floats added = ops::cuda::load_part<true>(from, first, width);
      if (r == 0) {
        values[p] = added;
        continue;
      }
#pragma unroll
      for (int i = 0; i < kPart; ++i) values[p].v[i] += added.v[i];
    }
  }
}

// What becomes of a row's sum, wherever it was added.
template <class Y>
struct After {
  float* residual;
  bool fresh;
  const float* weight;
  float eps;
  int64_t rows, width, y_stride;
  ops::cuda::QuantizedMatrix rounded;

  template <class Row>
  __device__ ops::cuda::NormWeights<true, Row> weights_of(const Row& row) const {
    return {row, weight, width};
  }

  // values: the sum of row `index`, of so many columns, which `row`'s threads hold. Leaves the row of y in
  // `out`.
  template <class Row>
  __device__ void run(Row& row, const ops::cuda::NormWeights<true, Row>& weights,
                      Floats (&values)[Row::kHeld], int64_t index, int64_t columns, Y* out) const {
    if (residual != nullptr) {
      float* stream = residual + index * width;
#pragma unroll
      for (int p = 0; p < Row::kHeld; ++p) {
        const int64_t first = row.first(p);
        if (!fresh) {
          const Floats before = ops::cuda::load_part<true>(stream, first, columns);
#pragma unroll
          for (int i = 0; i < kPart; ++i) values[p].v[i] = before.v[i] + values[p].v[i];
        }
        ops::cuda::store_part<true>(stream, first, columns, values[p]);
      }
    }
    if (weight != nullptr) {
      return ops::cuda::norm_row<true>(row, values, weights, eps, columns, out,
                                       ops::cuda::row_of(rounded, index));
    }
#pragma unroll
    for (int p = 0; p < Row::kHeld; ++p) {
      ops::cuda::store_part<true>(out, row.first(p), columns, values[p]);
    }
  }
};

// Calls run(parts constant, null of D, null of Y).
template <class F>
void with_kernel(const SumArgs& args, const F& run) {
  const auto types = [&](auto parts) {
    ops::cuda::with_activation_type(args.rows.dtype, "rows", [&](auto* d) {
      ops::cuda::with_activation_type(args.y.dtype, "y", [&](auto* y) { run(parts, d, y); });
    });
  };
  switch (ops::cuda::norm_parts(args.rows.columns)) {
    case 1:
      return types(std::integral_constant<int, 1>{});
    case 2:
      return types(std::integral_constant<int, 2>{});
    default:
      return types(std::integral_constant<int, 4>{});
  }
}

template <class Y>
After<Y> after_of(const SumArgs& args) {
  FATHOM_CHECK(ops::cuda::takes_parts(args.rows) && ops::cuda::takes_parts(args.y), "rows or y not aligned");
  FATHOM_CHECK(args.rows.columns <= ops::cuda::kMostNormWidth, "width {}", args.rows.columns);
  return {args.residual,  args.fresh,        args.weight,   args.eps,
          args.rows.rows, args.rows.columns, args.y.stride, args.rounded};
}

}  // namespace fathom::dist::cuda

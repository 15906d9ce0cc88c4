// The experts' answers into the residual stream, and its norm: one kernel for rows of blocks and of clusters.
#pragma once

#include "device/cuda/launch_kernel.h"
#include "ops/moe/expert_rows.cuh"
#include "ops/rms_norm/cuda.h"
#include "ops/rms_norm/row.cuh"

namespace fathom::ops::cuda {

#ifdef __CUDACC__
// A CTA a token, or a cluster.
template <int kTopK, int kParts, bool kVectors, class Row, class T>
__global__ void __launch_bounds__(norm_threads(kParts))
    expert_combine_norm_kernel(ExpertRows<T, T> experts, float* residual, const float* weight, float eps,
                               int64_t width, T* y, int64_t y_stride, QuantizedMatrix rounded) {
  device::cuda::let_next_start();
  __shared__ typename Row::Shared shared;
  Row row{shared};
  const NormWeights<kVectors, Row> weights(row, weight, width);
  const int64_t t = row.index();
  float* residual_row = residual + t * width;
  const bool padding = experts.is_padding(t);
#pragma unroll 1
  for (int pass = row.rehearses() ? 0 : 1; pass < 2; ++pass) {
    const int64_t columns = pass == 0 ? 0 : width;  // nothing is read or written in the first
    if (pass > 0) device::cuda::wait_for_previous();
    Floats values[Row::kHeld];
#pragma unroll
    for (int p = 0; p < Row::kHeld; ++p) {
      const int64_t first = row.first(p);
      values[p] = load_part<kVectors>(residual_row, first, columns);
      if (padding || first >= columns) continue;
      const Floats added = experts.template sum<kTopK, kVectors>(t, first, columns);
#pragma unroll
      for (int i = 0; i < kPart; ++i) values[p].v[i] += added.v[i];
      store_part<kVectors>(residual_row, first, columns, values[p]);
    }
    norm_row<kVectors>(row, values, weights, eps, columns, y + t * y_stride, row_of(rounded, t));
  }
}

// T: of y; `cluster` CTAs a row.
template <int kTopK, int kParts, bool kVectors, class Row, class T>
void launch_combine_norm(device::cuda::Stream& stream, const ExpertCombineArgs& args,
                         const AddRmsNormArgs& norm, unsigned cluster, unsigned threads) {
  const Matrix& y = norm.y;
  device::cuda::launch_early_clusters(stream, expert_combine_norm_kernel<kTopK, kParts, kVectors, Row, T>,
                                      cluster, static_cast<unsigned>(y.rows) * cluster, threads, 0,
                                      ExpertRows<T, T>(args), norm.residual, norm.weight, norm.eps, y.columns,
                                      static_cast<T*>(y.data), y.stride, norm.rounded);
}
#endif

// Few rows of bf16 that can be read as vectors, on Hopper. False, and nothing is done, for others.
bool expert_combine_norm_clusters(device::cuda::Stream& stream, const ExpertCombineArgs& args,
                                  const AddRmsNormArgs& norm);

}  // namespace fathom::ops::cuda

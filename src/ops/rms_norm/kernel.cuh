// The kernel of both norms (cuda.h), for rows of blocks and of clusters.
#pragma once

#include "device/cuda/launch_kernel.h"
#include "ops/rms_norm/cuda.h"
#include "ops/rms_norm/row.cuh"

namespace fathom::ops::cuda {

#ifdef __CUDACC__
// A CTA a row, or a cluster; it stays in registers between the sum and the scaling.
template <int kParts, bool kVectors, class Row, class X, class D, class Y>
__global__ void __launch_bounds__(norm_threads(kParts))
    rms_norm_kernel(X* x, int64_t x_stride, const D* delta, int64_t delta_stride, const float* weight,
                    float eps, int64_t width, Y* y, int64_t y_stride, QuantizedMatrix rounded) {
  device::cuda::let_next_start();
  __shared__ typename Row::Shared shared;
  Row row{shared};
  const NormWeights<kVectors, Row> weights(row, weight, width);
  X* x_row = x + row.index() * x_stride;
#pragma unroll 1
  for (int pass = row.rehearses() ? 0 : 1; pass < 2; ++pass) {
    const int64_t columns = pass == 0 ? 0 : width;  // nothing is read or written in the first
    if (pass > 0) device::cuda::wait_for_previous();
    Floats values[Row::kHeld];
#pragma unroll
    for (int p = 0; p < Row::kHeld; ++p) values[p] = load_part<kVectors>(x_row, row.first(p), columns);
    if (delta != nullptr) {
      const D* delta_row = delta + row.index() * delta_stride;
#pragma unroll
      for (int p = 0; p < Row::kHeld; ++p) {
        const int64_t first = row.first(p);
        const Floats added = load_part<kVectors>(delta_row, first, columns);
#pragma unroll
        for (int i = 0; i < kPart; ++i) values[p].v[i] += added.v[i];
        store_part<kVectors>(x_row, first, columns, values[p]);
      }
    }
    norm_row<kVectors>(row, values, weights, eps, columns, y + row.index() * y_stride,
                       row_of(rounded, row.index()));
  }
}

// X: of x, D: of delta, Y: of y; `cluster` CTAs a row.
template <int kParts, bool kVectors, class Row, class X, class D, class Y>
void launch_norm(device::cuda::Stream& stream, const Matrix& x, const Matrix& delta, const float* weight,
                 float eps, const Matrix& y, const QuantizedMatrix& rounded, unsigned cluster,
                 unsigned threads) {
  device::cuda::launch_early_clusters(stream, rms_norm_kernel<kParts, kVectors, Row, X, D, Y>, cluster,
                                      static_cast<unsigned>(x.rows) * cluster, threads, 0,
                                      static_cast<X*>(x.data), x.stride, static_cast<const D*>(delta.data),
                                      delta.stride, weight, eps, x.columns, static_cast<Y*>(y.data), y.stride,
                                      rounded);
}
#endif

// Few rows that can be read as vectors, of the types that models have, on Hopper. False, and nothing is done,
// for others.
bool norm_by_clusters(device::cuda::Stream& stream, const Matrix& x, const Matrix& delta, const float* weight,
                      float eps, const Matrix& y, const QuantizedMatrix& rounded);

}  // namespace fathom::ops::cuda

#include "ops/rms_norm/cluster_row.cuh"
#include "ops/rms_norm/kernel.cuh"

namespace fathom::ops::cuda {

bool norm_by_clusters(device::cuda::Stream& stream, const Matrix& x, const Matrix& delta, const float* weight,
                      float eps, const Matrix& y, const QuantizedMatrix& rounded) {
  using device::DType;
  constexpr int kParts = 2;
  if (!takes_clusters(stream.gpu(), x.rows, x.columns) || norm_parts(x.columns) != kParts ||
      y.dtype != DType::kBF16) {
    return false;
  }
  const auto launch = [&](auto* x_null, auto* delta_null) {
    using X = std::remove_pointer_t<decltype(x_null)>;
    using D = std::remove_pointer_t<decltype(delta_null)>;
    launch_norm<kParts, true, ClusterRow<kParts>, X, D, bf16>(
        stream, x, delta, weight, eps, y, rounded, row_cluster(x.columns), row_cluster_threads(x.columns));
  };
  float* const f32 = nullptr;
  if (delta.data == nullptr)
    x.dtype == DType::kF32 ? launch(f32, f32) : launch(static_cast<bf16*>(nullptr), f32);
  else if (x.dtype == DType::kF32 && delta.dtype == DType::kF32)
    launch(f32, f32);
  else
    return false;
  return true;
}

}  // namespace fathom::ops::cuda

#include "ops/moe/combine_norm.cuh"
#include "ops/rms_norm/cluster_row.cuh"

namespace fathom::ops::cuda {

bool expert_combine_norm_clusters(device::cuda::Stream& stream, const ExpertCombineArgs& args,
                                  const AddRmsNormArgs& norm) {
  constexpr int kParts = 2;
  const Matrix& y = norm.y;
  if (!takes_clusters(stream.gpu(), y.rows, y.columns) || norm_parts(y.columns) != kParts ||
      y.dtype != device::DType::kBF16 || (args.top_k != 8 && args.top_k != 6)) {
    return false;
  }
  const auto launch = [&](auto top_k) {
    launch_combine_norm<decltype(top_k)::value, kParts, true, ClusterRow<kParts>, bf16>(
        stream, args, norm, row_cluster(y.columns), row_cluster_threads(y.columns));
  };
  args.top_k == 8 ? launch(std::integral_constant<int, 8>{}) : launch(std::integral_constant<int, 6>{});
  return true;
}

}  // namespace fathom::ops::cuda

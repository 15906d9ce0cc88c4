#include "dist/cuda/post.cuh"
#include "ops/rms_norm/cluster_row.cuh"

namespace fathom::dist::cuda {

bool sum_by_post_clusters(device::cuda::Stream& stream, const PeerView& peers, const SumArgs& args) {
  constexpr int kParts = 2;
  using ops::cuda::bf16;
  const int64_t width = args.rows.columns;
  if (!ops::cuda::takes_clusters(stream.gpu(), args.rows.rows, width) ||
      args.rows.rows * ops::cuda::row_cluster(width) > peers.most_blocks ||
      ops::cuda::norm_parts(width) != kParts || args.rows.dtype != device::DType::kF32 ||
      args.y.dtype != device::DType::kBF16) {
    return false;
  }
  const auto launch = [&](const auto& rows) {
    launch_post<bf16, kParts, ops::cuda::ClusterRow<kParts>>(
        stream, peers, args, rows, ops::cuda::row_cluster(width), ops::cuda::row_cluster_threads(width));
  };
  if (!args.answers || !adds_answers(args)) {
    launch(OwnRowsAsTheyAre<float>{static_cast<const float*>(args.rows.data), width});
    return true;
  }
  const ops::cuda::ExpertRows<bf16, bf16> experts(*args.answers);
  experts.top_k == 8 ? launch(OwnAnswers<8>{experts, width}) : launch(OwnAnswers<6>{experts, width});
  return true;
}

}  // namespace fathom::dist::cuda

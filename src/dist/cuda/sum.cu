#include <algorithm>

#include "dist/cuda/post.cuh"

namespace fathom::dist::cuda {
namespace {

template <class D, class Y, int kParts>
__global__ void __launch_bounds__(ops::cuda::norm_threads(kParts))
    meeting_kernel(PeerView peers, Everywhere rows, After<Y> after, Everywhere y, Share share) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();

  using Row = ops::cuda::BlockRow<kParts>;
  __shared__ typename Row::Shared shared;
  Row threads{shared};
  const auto weights = after.weights_of(threads);
  const int64_t width = after.width;
  const uint32_t meeting = peers.progress->meetings + 1;
  meet(peers, 0, meeting, Op::kSum);
  for (int64_t row = share.first + blockIdx.x; row < share.end; row += gridDim.x) {
    Floats values[kParts];
    add_in_order(values, peers.size, width,
                 [&](int r) { return static_cast<const D*>(rows.at[r]) + row * width; });
    Y* mine = static_cast<Y*>(y.at[peers.rank]) + row * after.y_stride;
    after.run(threads, weights, values, row, width, mine);
    // Each thread sends on what it has just written itself.
    for (int p = 0; p < kParts; ++p) {
      const int64_t first = (p * static_cast<int64_t>(blockDim.x) + threadIdx.x) * kPart;
      if (first >= width) continue;
      const auto part = *reinterpret_cast<const ops::cuda::Part<Y>*>(mine + first);
      for (int r = 0; r < peers.size; ++r) {
        if (r == peers.rank || y.at[r] == nullptr) continue;
        *reinterpret_cast<ops::cuda::Part<Y>*>(static_cast<Y*>(y.at[r]) + row * after.y_stride + first) =
            part;
      }
    }
    __syncthreads();  // `shared` is free again
  }
  meet(peers, 1, meeting, Op::kSum);
  when_last(peers, [&](Progress& progress) { progress.meetings = meeting; });
}

}  // namespace

bool adds_answers(const SumArgs& args) {
  using device::DType;
  const ops::cuda::ExpertCombineArgs& answers = *args.answers;
  return args.rows.dtype == DType::kF32 && args.y.dtype == DType::kBF16 &&
         answers.rows.dtype == DType::kBF16 && (answers.top_k == 8 || answers.top_k == 6) &&
         (answers.shared.data == nullptr || answers.shared.dtype == DType::kBF16) &&
         ops::cuda::takes_parts(answers);
}

void sum_by_post(device::cuda::Stream& stream, const PeerView& peers, const SumArgs& args) {
  const int64_t bytes = args.rows.rows * args.rows.columns * device::size_of(args.rows.dtype);
  FATHOM_CHECK(bytes <= peers.box_words * 4, "a post of {} bytes", bytes);
  if (sum_by_post_clusters(stream, peers, args)) return stream.launched("sum by post");
  with_kernel(args, [&](auto parts, auto* d, auto* y) {
    using D = std::remove_pointer_t<decltype(d)>;
    using Y = std::remove_pointer_t<decltype(y)>;
    const auto launch = [&](const auto& rows) {
      constexpr int kParts = decltype(parts)::value;
      launch_post<Y, kParts, ops::cuda::BlockRow<kParts>>(stream, peers, args, rows, 1,
                                                          ops::cuda::norm_block(args.rows.columns));
    };
    const int64_t width = args.rows.columns;
    if constexpr (std::is_same_v<D, float> && std::is_same_v<Y, ops::cuda::bf16>) {
      if (args.answers && adds_answers(args)) {
        using Experts = ops::cuda::ExpertRows<ops::cuda::bf16, ops::cuda::bf16>;
        const Experts experts(*args.answers);
        return experts.top_k == 8 ? launch(OwnAnswers<8>{experts, width})
                                  : launch(OwnAnswers<6>{experts, width});
      }
    }
    launch(OwnRowsAsTheyAre<D>{static_cast<const D*>(args.rows.data), width});
  });
  stream.launched("sum by post");
}

void sum_by_meeting(device::cuda::Stream& stream, const PeerView& peers, const SumArgs& args,
                    const Everywhere& rows, const Everywhere& y, const Share& share) {
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(share.most, peers.most_blocks));
  with_kernel(args, [&](auto parts, auto* d, auto* y_null) {
    using D = std::remove_pointer_t<decltype(d)>;
    using Y = std::remove_pointer_t<decltype(y_null)>;
    device::cuda::launch_early(stream, meeting_kernel<D, Y, decltype(parts)::value>, blocks,
                               ops::cuda::norm_block(args.rows.columns), 0, peers, rows, after_of<Y>(args), y,
                               share);
  });
  stream.launched("sum by meeting");
}

}  // namespace fathom::dist::cuda

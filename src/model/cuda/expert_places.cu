#include "device/cuda/launch_kernel.h"
#include "model/cuda/expert_places.h"

namespace fathom::model::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void place_experts_kernel(PlaceExpertsArgs args) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();

  const int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (i >= args.tokens * args.top_k) return;
  const int64_t t = i / args.top_k;
  if (args.positions[t] < 0) return;
  const int32_t expert = args.ids[i];
  const uint32_t dice = __float_as_uint(args.logits[t * args.experts]) * 2654435761U >> 8;
  const int32_t begin = args.places.first[expert];
  const auto copies = static_cast<uint32_t>(args.places.first[expert + 1] - begin);
  args.ids[i] = args.places.slots[begin + static_cast<int32_t>(dice % copies)];
  atomicAdd(args.places.load + expert, 1ULL);
}

}  // namespace

void place_experts(device::cuda::Stream& stream, const PlaceExpertsArgs& args) {
  device::cuda::launch_early(stream, place_experts_kernel,
                             static_cast<unsigned>((args.tokens * args.top_k + kThreads - 1) / kThreads),
                             kThreads, 0, args);
  stream.launched("place_experts");
}

}  // namespace fathom::model::cuda

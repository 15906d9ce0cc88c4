// Which rows of guessed tokens go on (sample/verify.h is the specification).
#include "base/random.h"
#include "sample/cuda/state.cuh"

namespace fathom::sample::cuda {
namespace {

constexpr unsigned kThreads = 128;

__global__ void follow_kernel(Pools pools, FollowArgs args) {
  const int64_t r = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (r >= args.rows) return;
  const int32_t slot = args.row_slots[r];
  const int32_t token = args.tokens[r];
  bool goes_on = slot >= 0 && args.position < args.drafts[r];
  if (goes_on && args.simulated >= 0.0F) {
    const auto index = static_cast<uint64_t>(pools.slots[slot].generated);
    goes_on = random_uniform(pools.slots[slot].seed, static_cast<uint64_t>(slot) + 1, index) < args.simulated;
  } else {
    goes_on = goes_on && token == args.guesses[r];
  }
  if (goes_on) {
    const int32_t* stops = pools.stop_ids + static_cast<int64_t>(slot) * GpuSampler::kMaxStops;
    for (int32_t i = 0; i < pools.slots[slot].num_stops; ++i) goes_on = goes_on && stops[i] != token;
  }
  args.next_slots[r] = goes_on ? slot : -1;
}

}  // namespace

void launch_follow(device::cuda::Stream& stream, const Pools& pools, const FollowArgs& args) {
  const auto blocks = static_cast<unsigned>((args.rows + kThreads - 1) / kThreads);
  follow_kernel<<<blocks, kThreads, 0, stream.handle()>>>(pools, args);
  stream.launched("sample: follow");
}

}  // namespace fathom::sample::cuda

// Which rows of guessed tokens go on (sample/verify.h is the specification).
#include "base/random.h"
#include "sample/cuda/state.cuh"

namespace fathom::sample::cuda {
namespace {

constexpr unsigned kThreads = 128;

__device__ bool ends(const Pools& pools, int32_t slot, int32_t token) {
  const int32_t* stops = pools.stop_ids + static_cast<int64_t>(slot) * GpuSampler::kMaxStops;
  bool found = false;
  for (int32_t i = 0; i < pools.slots[slot].num_stops; ++i) found = found || stops[i] == token;
  return found;
}

__device__ bool simulated(const Pools& pools, int32_t slot, float probability) {
  const auto index = static_cast<uint64_t>(pools.slots[slot].generated);
  return random_uniform(pools.slots[slot].seed, static_cast<uint64_t>(slot) + 1, index) < probability;
}

__global__ void follow_kernel(Pools pools, FollowArgs args) {
  const int64_t r = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (r >= args.rows) return;
  const int32_t slot = args.row_slots[r];
  const int32_t token = args.tokens[r];
  bool goes_on = slot >= 0 && args.position < args.drafts[r];
  if (goes_on) {
    goes_on = args.simulated >= 0.0F ? simulated(pools, slot, args.simulated) : token == args.guesses[r];
  }
  goes_on = goes_on && !ends(pools, slot, token);
  args.next_slots[r] = goes_on ? slot : -1;
}

// One thread a row: a tree has few places.
__global__ void follow_tree_kernel(Pools pools, FollowTreeArgs args) {
  const int64_t r = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (r >= args.rows) return;
  const int32_t slot = args.row_slots[r], token = args.tokens[r];
  const int32_t* parents = args.place_parents + r * args.width;
  const int32_t* guesses = args.place_tokens + r * args.width;
  const auto at = static_cast<int32_t>(args.logit_rows[r] - r * args.width);
  int32_t held = 0;  // the place of the token
  if (slot >= 0 && !ends(pools, slot, token)) {
    const bool any = args.simulated >= 0.0F;
    for (int32_t i = at + 1; i < args.width && held == 0; ++i) {
      if (parents[i] == at && (any || guesses[i] == token)) held = i;
    }
    if (any && held > 0 && !simulated(pools, slot, args.simulated)) held = 0;
  }
  args.next_slots[r] = held > 0 ? slot : -1;
  args.next_logit_rows[r] = static_cast<int32_t>(r * args.width) + held;
  int32_t count = 0;
  for (int32_t i = held + 1; held > 0 && i < args.width && count < args.each; ++i) {
    if (parents[i] == held) args.next_guessed[r * args.each + count++] = guesses[i];
  }
  for (; count < args.each; ++count) args.next_guessed[r * args.each + count] = -1;
}

}  // namespace

void launch_follow(device::cuda::Stream& stream, const Pools& pools, const FollowArgs& args) {
  const auto blocks = static_cast<unsigned>((args.rows + kThreads - 1) / kThreads);
  follow_kernel<<<blocks, kThreads, 0, stream.handle()>>>(pools, args);
  stream.launched("sample: follow");
}

void launch_follow_tree(device::cuda::Stream& stream, const Pools& pools, const FollowTreeArgs& args) {
  const auto blocks = static_cast<unsigned>((args.rows + kThreads - 1) / kThreads);
  follow_tree_kernel<<<blocks, kThreads, 0, stream.handle()>>>(pools, args);
  stream.launched("sample: follow");
}

}  // namespace fathom::sample::cuda

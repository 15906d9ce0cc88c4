// Brings what opens slots from a staging chunk into the slots' state.
#include "sample/cuda/state.cuh"

namespace fathom::sample::cuda {
namespace {

constexpr int kThreads = 256;
constexpr unsigned kClearers = 16;  // CTAs that share the clearing of a slot's counts

// CTAs (i, b): command i.
__global__ void apply_slots_kernel(Pools pools, const Command* commands, const int32_t* words) {
  const Command command = commands[blockIdx.x];
  if (command.kind != Command::kSlot) return;
  const auto& slot = *reinterpret_cast<const Slot*>(words + command.begin);
  if (blockIdx.y == 0 && threadIdx.x == 0) pools.slots[command.slot] = slot;
  if (slot.penalises == 0) return;
  uint32_t* counts = pools.counts + command.slot * pools.vocab;
  for (int64_t i = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x; i < pools.vocab;
       i += static_cast<int64_t>(gridDim.y) * kThreads) {
    counts[i] = 0;
  }
}

__global__ void apply_lists_kernel(Pools pools, const Command* commands, const int32_t* words) {
  const Command command = commands[blockIdx.x];
  const int32_t* data = words + command.begin;
  uint32_t* counts = pools.counts + command.slot * pools.vocab;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < command.count; i += kThreads) {
    switch (command.kind) {
      case Command::kSlot:
        break;
      case Command::kBias: {
        const int64_t at = command.slot * static_cast<int64_t>(GpuSampler::kMaxBias) + command.first + i;
        pools.bias_ids[at] = data[2 * i];
        pools.bias_values[at] = __int_as_float(data[2 * i + 1]);
        break;
      }
      case Command::kStops:
        pools.stop_ids[command.slot * static_cast<int64_t>(GpuSampler::kMaxStops) + command.first + i] =
            data[i];
        break;
      case Command::kPrompt:
        if (data[i] >= 0 && data[i] < pools.vocab) atomicOr(counts + data[i], kInPrompt);
        break;
      case Command::kOutput:
        if (data[i] >= 0 && data[i] < pools.vocab) atomicAdd(counts + data[i], 1U);
        break;
    }
  }
}

}  // namespace

void launch_apply(device::cuda::Stream& stream, const Pools& pools, const Command* commands, int32_t count,
                  const int32_t* words) {
  const auto blocks = static_cast<unsigned>(count);
  apply_slots_kernel<<<dim3(blocks, kClearers), kThreads, 0, stream.handle()>>>(pools, commands, words);
  stream.launched("sample: open");
  apply_lists_kernel<<<blocks, kThreads, 0, stream.handle()>>>(pools, commands, words);
  stream.launched("sample: open");
}

}  // namespace fathom::sample::cuda

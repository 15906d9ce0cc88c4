#include "engine/cuda/guess_input.h"

namespace fathom::engine::cuda {
namespace {

__global__ void update_kernel(SlotTables tables, const SlotUpdate* updates, int64_t count) {
  const int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (i >= count) return;
  const SlotUpdate update = updates[i];
  if (update.index < 0) {
    tables.last_tokens[update.slot] = update.value;
  } else {
    tables.block_tables[update.slot * tables.stride + update.index] = update.value;
  }
}

__global__ void resolve_kernel(int32_t* ids, const int32_t* slots, const int32_t* last_tokens,
                               const int32_t* guesses, int64_t rows, int64_t count) {
  const int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (i >= count || ids[i] >= 0) return;
  if (ids[i] == -1) {
    ids[i] = last_tokens[slots[i]];
  } else {
    const int32_t guess = guess_id(0, 0) - ids[i];
    ids[i] = guesses[guess % kGuessStride * rows + guess / kGuessStride];
  }
}

}  // namespace

void apply_updates(device::cuda::Stream& stream, const SlotTables& tables, const SlotUpdate* updates,
                   int64_t count) {
  if (count == 0) return;
  update_kernel<<<static_cast<unsigned>((count + 255) / 256), 256, 0, stream.handle()>>>(tables, updates,
                                                                                         count);
  stream.launched("slot updates");
}

void resolve_tokens(device::cuda::Stream& stream, int32_t* ids, const int32_t* slots,
                    const int32_t* last_tokens, const int32_t* guesses, int64_t rows, int64_t count) {
  if (count == 0) return;
  resolve_kernel<<<static_cast<unsigned>((count + 255) / 256), 256, 0, stream.handle()>>>(
      ids, slots, last_tokens, guesses, rows, count);
  stream.launched("resolve tokens");
}

}  // namespace fathom::engine::cuda

// What the GPU kernels of `linear` share: how a tile finds its rows, and how a result goes out.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "device/cuda/launch_kernel.h"
#include "ops/linear/cuda_kernels.h"

namespace fathom::ops::cuda {

// Rows [first, first + count) of one group.
struct RowTile {
  int32_t group, first, count;
};

// The tile of number `index` among all groups' tiles of `height` rows; count 0 when there are fewer. All
// threads of the first warp call it.
__device__ inline RowTile find_row_tile(const TileArgs& args, int32_t index, int32_t height) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int32_t base = 0; base < args.groups; base += 32) {
    const int32_t group = base + lane;
    const int32_t begin = group < args.groups ? args.offsets[group] : 0;
    const int32_t end = group < args.groups ? args.offsets[group + 1] : 0;
    const int32_t mine = (end - begin + height - 1) / height;
    int32_t upto = mine;  // tiles of the groups base .. group
    for (int step = 1; step < 32; step *= 2) {
      const int32_t before = __shfl_up_sync(0xffffffffU, upto, step);
      if (lane >= step) upto += before;
    }
    const unsigned past = __ballot_sync(0xffffffffU, upto > index);
    if (past != 0) {
      const int owner = __ffs(static_cast<int>(past)) - 1;
      const int32_t within = index - __shfl_sync(0xffffffffU, upto - mine, owner);
      const int32_t first = __shfl_sync(0xffffffffU, begin, owner) + within * height;
      const int32_t left = __shfl_sync(0xffffffffU, end, owner) - first;
      return {base + owner, first, left < height ? left : height};
    }
    index -= __shfl_sync(0xffffffffU, upto, 31);
  }
  return {0, 0, 0};
}

// The block's rows: blockIdx.y counts tiles of `height` rows (of all groups), blockIdx.z heads. Grouped, it
// waits for the kernel before this one, which may write the offsets. All threads call it.
__device__ inline RowTile row_tile_of_block(const TileArgs& args, int32_t height) {
  __shared__ RowTile shared_tile;
  RowTile tile{static_cast<int32_t>(blockIdx.z), static_cast<int32_t>(blockIdx.y) * height, 0};
  if (args.offsets == nullptr) {
    tile.count = min(height, args.rows - tile.first);
    return tile;
  }
  device::cuda::wait_for_previous();
  if (threadIdx.x < 32) {
    const RowTile found = find_row_tile(args, static_cast<int32_t>(blockIdx.y), height);
    if (threadIdx.x == 0) shared_tile = found;
  }
  __syncthreads();
  return shared_tile;
}

__device__ inline float silu(float a) {
  return a / (1.0F + expf(-a));
}

// y[row, column] = value, or added to it.
__device__ inline void store_output(const TileArgs& args, int64_t y_base, int64_t row, int64_t column,
                                    float value) {
  const int64_t at = y_base + row * args.y_stride + column;
  if (args.y_is_f32) {
    float* y = static_cast<float*>(args.y) + at;
    *y = args.accumulate ? *y + value : value;
  } else {
    __nv_bfloat16* y = static_cast<__nv_bfloat16*>(args.y) + at;
    *y = __float2bfloat16(args.accumulate ? __bfloat162float(*y) + value : value);
  }
}

// Of one row of y the outputs of the weight's rows n_row and n_row + 8: both, or silu(gate) * up.
__device__ inline void store_outputs(const TileArgs& args, int64_t y_base, int64_t row, int32_t n_row,
                                     float a, float b) {
  if (args.swiglu) {
    if (n_row < args.n) store_output(args, y_base, row, n_row / 16 * 8 + n_row % 8, silu(a) * b);
    return;
  }
  if (n_row < args.n) store_output(args, y_base, row, n_row, a);
  if (n_row + 8 < args.n) store_output(args, y_base, row, n_row + 8, b);
}

}  // namespace fathom::ops::cuda

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

// The tile of number `index` among all groups' tiles of `height` rows; count 0 when there are fewer. By whole
// warps. A lane looks at several groups that follow each other, so that all offsets come at once.
__device__ inline RowTile find_row_tile(const TileArgs& args, int32_t index, int32_t height) {
  constexpr int kEach = 8;
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int32_t base = 0; base < args.groups; base += 32 * kEach) {
    const int32_t group = base + lane * kEach;
    int32_t offsets[kEach + 1];
#pragma unroll
    for (int i = 0; i <= kEach; ++i) offsets[i] = args.offsets[min(group + i, args.groups)];
    const auto tiles_of = [&](int i) { return (offsets[i + 1] - offsets[i] + height - 1) / height; };
    int32_t mine = 0;
#pragma unroll
    for (int i = 0; i < kEach; ++i) mine += tiles_of(i);
    int32_t upto = mine;  // tiles of the lanes 0 .. lane
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int32_t before = __shfl_up_sync(0xffffffffU, upto, step);
      if (lane >= step) upto += before;
    }
    const unsigned past = __ballot_sync(0xffffffffU, upto > index);
    if (past == 0) {
      index -= __shfl_sync(0xffffffffU, upto, 31);
      continue;
    }
    // As the owner's lane sees it: the others' results are not taken.
    int32_t within = index - (upto - mine);
    RowTile tile{};
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      if (0 <= within && within < tiles_of(i)) {
        tile = {group + i, offsets[i] + within * height, 0};
        tile.count = min(offsets[i + 1] - tile.first, height);
      }
      within -= tiles_of(i);
    }
    const int from = __ffs(static_cast<int>(past)) - 1;
    return {__shfl_sync(0xffffffffU, tile.group, from), __shfl_sync(0xffffffffU, tile.first, from),
            __shfl_sync(0xffffffffU, tile.count, from)};
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

__device__ inline uint32_t pack_outputs(float a, float b) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
// An 8 x 8 matrix of 16-bit values that lies over the warp as a product's does, transposed.
__device__ inline uint32_t transpose_8x8(uint32_t values) {
  uint32_t result;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(values));
  return result;
}
// Whether what an output goes into is as the shortest way of storing wants it: bf16, overwritten, even
// places.
__device__ inline bool plain_bf16(const TileArgs& args) {
  return !args.y_is_f32 && !args.accumulate && args.y_stride % 2 == 0 && args.y_step % 2 == 0 &&
         reinterpret_cast<uintptr_t>(args.y) % 4 == 0;
}

// A warp's results of products with the weights' 16 rows from n_first on as rows and kCount / 4 times 8
// tokens as columns: lines [first, ...) of the tile, of which those below tile.count are stored. By whole
// warps.
template <int kCount>
__device__ inline void store_sums(const TileArgs& args, int64_t y_base, const RowTile& tile, int first,
                                  int n_first, const float (&sums)[kCount]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (plain_bf16(args) && n_first + 16 <= args.n) {
    // Turned round, so that a token's neighbouring outputs are stored together.
    auto* y =
        static_cast<__nv_bfloat16*>(args.y) + y_base + (args.swiglu ? n_first / 2 : n_first) + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < kCount / 4; ++j) {
      const float* sum = sums + 4 * j;
      const int line = first + j * 8 + lane / 4;
      auto* to = y + (tile.first + line) * args.y_stride;
      if (args.swiglu) {
        const uint32_t pair = transpose_8x8(pack_outputs(silu(sum[0]) * sum[2], silu(sum[1]) * sum[3]));
        if (line < tile.count) *reinterpret_cast<uint32_t*>(to) = pair;
      } else {
        const uint32_t low = transpose_8x8(pack_outputs(sum[0], sum[1]));
        const uint32_t high = transpose_8x8(pack_outputs(sum[2], sum[3]));
        if (line < tile.count) {
          *reinterpret_cast<uint32_t*>(to) = low;
          *reinterpret_cast<uint32_t*>(to + 8) = high;
        }
      }
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kCount / 2; ++i) {
    const int line = first + i / 2 * 8 + lane % 4 * 2 + i % 2;
    const int at = i / 2 * 4 + i % 2;
    if (line < tile.count)
      store_outputs(args, y_base, tile.first + line, n_first + lane / 4, sums[at], sums[at + 2]);
  }
}

}  // namespace fathom::ops::cuda

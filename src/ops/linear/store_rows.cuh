// How products with tokens as their rows go out: 64 rows a warpgroup, neighbouring columns of a row in a
// lane.
#pragma once

#include "ops/linear/cuda_tiles.cuh"

namespace fathom::ops::cuda {

__device__ inline void store_pair(const TileArgs& args, int64_t at, int32_t columns_left, float a, float b) {
  if (columns_left <= 0) return;
  if (args.y_is_f32) {
    float* y = static_cast<float*>(args.y) + at;
    y[0] = args.accumulate ? y[0] + a : a;
    if (columns_left > 1) y[1] = args.accumulate ? y[1] + b : b;
    return;
  }
  auto* y = static_cast<__nv_bfloat16*>(args.y) + at;
  if (columns_left == 1) {
    *y = __float2bfloat16(args.accumulate ? __bfloat162float(*y) + a : a);
    return;
  }
  auto* pair = reinterpret_cast<__nv_bfloat162*>(y);
  if (args.accumulate) {
    const float2 before = __bfloat1622float2(*pair);
    a += before.x;
    b += before.y;
  }
  *pair = __floats2bfloat162_rn(a, b);
}

// Lane q of a group of four holds, of each eight columns, columns 2 q and 2 q + 1 as one word; stores them as
// 16 bytes of eight columns. By whole warps.
template <int kWords>
__device__ inline void store_words(__nv_bfloat16* to, uint32_t (&words)[kWords], bool inside) {
  const auto lane = threadIdx.x % 4;
  const bool odd = (lane & 1U) != 0, upper = (lane & 2U) != 0;
  const auto swap = [](uint32_t value, int distance) {
    return __shfl_xor_sync(0xffffffffU, value, distance);
  };
#pragma unroll
  for (int i = 0; i < kWords; i += 4) {
    // A 4 x 4 matrix of words, lanes by words, transposed: first in blocks of 2 x 2, then those blocks.
    uint32_t w[4];
#pragma unroll
    for (int j = 0; j < 4; j += 2) {
      const uint32_t got = swap(odd ? words[i + j] : words[i + j + 1], 1);
      w[j] = odd ? got : words[i + j];
      w[j + 1] = odd ? words[i + j + 1] : got;
    }
    const uint32_t a = swap(upper ? w[0] : w[2], 2), b = swap(upper ? w[1] : w[3], 2);
    const uint4 line = upper ? make_uint4(a, b, w[2], w[3]) : make_uint4(w[0], w[1], a, b);
    if (inside) *reinterpret_cast<uint4*>(to + (i + lane) * 8) = line;
  }
}

// Whether store_words is for these columns.
__device__ inline bool takes_words(const TileArgs& args, int n_end) {
  return !args.y_is_f32 && !args.accumulate && n_end <= args.n && args.y_stride % 8 == 0 &&
         args.y_step % 8 == 0 && reinterpret_cast<uintptr_t>(args.y) % 16 == 0;
}

// A warpgroup's products of 64 rows of the tile, from first_row on, with kCount / 4 times 8 of the weight's
// rows, from n_first on: sums as wgmma leaves them. y's rows begin at even places. By whole warps.
template <int kCount>
__device__ inline void store_rows(const TileArgs& args, const RowTile& tile, int first_row, int n_first,
                                  const float (&sums)[kCount]) {
  constexpr int kEights = kCount / 4;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int row = first_row + thread % 128 / 32 * 16 + lane / 4;
  const int64_t y_base = args.offsets != nullptr ? 0 : tile.group * args.y_step;
  if (takes_words(args, n_first + kEights * 8)) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int line = row + half * 8;
      auto* to = static_cast<__nv_bfloat16*>(args.y) + y_base + (tile.first + line) * args.y_stride;
      if (args.swiglu) {
        uint32_t words[kEights / 2];
#pragma unroll
        for (int j = 0; j < kEights / 2; ++j) {
          const float* gate = sums + 8 * j + half * 2;  // and its up four on
          words[j] = pack_outputs(silu(gate[0]) * gate[4], silu(gate[1]) * gate[5]);
        }
        store_words(to + n_first / 2, words, line < tile.count);
      } else {
        uint32_t words[kEights];
#pragma unroll
        for (int j = 0; j < kEights; ++j)
          words[j] = pack_outputs(sums[4 * j + half * 2], sums[4 * j + half * 2 + 1]);
        store_words(to + n_first, words, line < tile.count);
      }
    }
    return;
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int line = row + half * 8;
    if (line >= tile.count) continue;
    const int64_t at = y_base + (tile.first + line) * args.y_stride;
    const int first = n_first + lane % 4 * 2;
    if (args.swiglu) {
#pragma unroll
      for (int j = 0; j < kEights; j += 2) {
        const int column = first + j * 8;
        const float a = silu(sums[4 * j + half * 2]) * sums[4 * j + 4 + half * 2];
        const float b = silu(sums[4 * j + half * 2 + 1]) * sums[4 * j + 4 + half * 2 + 1];
        store_pair(args, at + column / 16 * 8 + column % 8, args.n - column, a, b);
      }
    } else {
#pragma unroll
      for (int j = 0; j < kEights; ++j) {
        const int column = first + j * 8;
        store_pair(args, at + column, args.n - column, sums[4 * j + half * 2], sums[4 * j + half * 2 + 1]);
      }
    }
  }
}

}  // namespace fathom::ops::cuda

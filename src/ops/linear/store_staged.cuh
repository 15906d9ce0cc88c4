// How a warp's products with 16 tokens as rows go out, by way of shared memory: whole lines of y at a time,
// in little code.
#pragma once

#include "ops/linear/store_rows.cuh"
#include "ops/mma.cuh"

namespace fathom::ops::cuda {

constexpr int kStagedPitch = 128 + 16;  // bytes of a line, so that eight lines lie in different banks
constexpr int kStagedBytes = 16 * kStagedPitch;  // of a warp

// Four 8 x 8 matrices of 16-bit values, or these transposed; lane i gives the address of row i % 8 of matrix
// i / 8.
template <bool kTransposed = false>
__device__ inline void store_matrix_x4(uint32_t row, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  if constexpr (kTransposed) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(a),
                 "r"(b), "r"(c), "r"(d)
                 : "memory");
  } else {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(a),
                 "r"(b), "r"(c), "r"(d)
                 : "memory");
  }
}

// `rows` lines of kEights times 16 bytes, to `to` and every y_stride values on.
template <int kEights>
__device__ inline void copy_staged(__nv_bfloat16* to, int64_t y_stride, int rows, const uint8_t* staged) {
#pragma unroll
  for (int i = 0; i < (16 * kEights + 31) / 32; ++i) {
    const int at = i * 32 + static_cast<int>(threadIdx.x) % 32;
    const int line = at / kEights, eight = at % kEights;
    if (line < min(rows, 16)) {
      *reinterpret_cast<uint4*>(to + line * y_stride + eight * 8) =
          *reinterpret_cast<const uint4*>(staged + line * kStagedPitch + eight * 16);
    }
  }
}

// bf16, overwritten, all columns there: 64 columns at a time.
template <bool kSwiglu, int kCount>
__device__ inline void store_staged_words(const TileArgs& args, int64_t row, int rows, int n_first,
                                          uint8_t* staged, const float (&sums)[kCount]) {
  constexpr int kEights = kCount / 4;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const uint32_t matrix_row =
      shared_address(staged) + (lane % 8 + lane / 8 % 2 * 8) * kStagedPitch + lane / 16 * 16;
  auto* to = static_cast<__nv_bfloat16*>(args.y) + row * args.y_stride + (kSwiglu ? n_first / 2 : n_first);
  // The words of one eight of outputs: of the upper eight rows, and of the lower.
  const auto words = [&](int eight, uint32_t& upper, uint32_t& lower) {
    if constexpr (kSwiglu) {
      const float* gate = sums + 8 * eight;  // and its up four on
      upper = pack_outputs(silu(gate[0]) * gate[4], silu(gate[1]) * gate[5]);
      lower = pack_outputs(silu(gate[2]) * gate[6], silu(gate[3]) * gate[7]);
    } else {
      upper = pack_outputs(sums[4 * eight], sums[4 * eight + 1]);
      lower = pack_outputs(sums[4 * eight + 2], sums[4 * eight + 3]);
    }
  };
  constexpr int kOutputs = kSwiglu ? kEights / 2 : kEights;
  constexpr int kLast = kOutputs % 8;
#pragma unroll
  for (int first = 0; first < kOutputs; first += 8) {
    const int count = kOutputs - first < 8 ? kLast : 8;
    __syncwarp();
#pragma unroll
    for (int j = 0; j < 8; j += 2) {
      if (j >= count) break;
      uint32_t a, b, c, d;
      words(first + j, a, b);
      words(first + (j + 1 < count ? j + 1 : j), c, d);  // there is room for one more
      store_matrix_x4(matrix_row + j * 16, a, b, c, d);
    }
    __syncwarp();
    if (count == 8) {
      copy_staged<8>(to + first * 8, args.y_stride, rows, staged);
    } else if constexpr (kLast > 0) {
      copy_staged<kLast>(to + first * 8, args.y_stride, rows, staged);
    }
  }
}

// The same for any y, 32 columns at a time.
template <int kCount>
__device__ inline void store_staged_any(const TileArgs& args, int64_t row, int rows, int n_first,
                                        uint8_t* staged, const float (&sums)[kCount]) {
  constexpr int kEights = kCount / 4;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  auto* mine = reinterpret_cast<float2*>(staged + lane / 4 * kStagedPitch + lane % 4 * 8);
  const bool in_words = args.y_is_f32 && !args.accumulate && !args.swiglu &&
                        n_first + kEights * 8 <= args.n && args.y_stride % 4 == 0 &&
                        reinterpret_cast<uintptr_t>(args.y) % 16 == 0;
#pragma unroll
  for (int first = 0; first < kEights; first += 4) {
    const int count = kEights - first < 4 ? kEights - first : 4;
    __syncwarp();
#pragma unroll
    for (int j = 0; j < count; ++j) {
      const float* sum = sums + 4 * (first + j);
      mine[j * 4] = make_float2(sum[0], sum[1]);
      mine[(8 * kStagedPitch + j * 32) / 8] = make_float2(sum[2], sum[3]);
    }
    __syncwarp();
    const int column = n_first + first * 8;
    if (in_words) {
      for (int line = lane / 8; line < min(rows, 16); line += 4) {
        if (lane % 8 < count * 2) {
          *reinterpret_cast<float4*>(static_cast<float*>(args.y) + (row + line) * args.y_stride + column +
                                     lane % 8 * 4) =
              *reinterpret_cast<const float4*>(staged + line * kStagedPitch + lane % 8 * 16);
        }
      }
      continue;
    }
    for (int line = 0; line < min(rows, 16); ++line) {
      const float* values = reinterpret_cast<const float*>(staged + line * kStagedPitch);
      if (!args.swiglu) {
        if (lane < count * 8 && column + lane < args.n)
          store_output(args, 0, row + line, column + lane, values[lane]);
      } else if (lane < count * 4 && column + lane / 8 * 16 < args.n) {
        const float* gate = values + lane / 8 * 16 + lane % 8;  // and its up eight on
        store_output(args, 0, row + line, column / 2 + lane, silu(gate[0]) * gate[8]);
      }
    }
  }
}

// A warp's products of 16 rows, y's from `row` on, of which `rows` are there, with kCount / 4 times 8 of the
// weight's rows, from n_first on (with swiglu a multiple of 16): sums as wgmma leaves them. `staged`: the
// warp's own kStagedBytes of shared memory, 16-byte aligned. By whole warps.
template <int kCount>
__device__ inline void store_staged(const TileArgs& args, int64_t row, int rows, int n_first, uint8_t* staged,
                                    const float (&sums)[kCount]) {
  if (rows <= 0) return;
  if (!takes_words(args, n_first + kCount * 2)) {
    store_staged_any(args, row, rows, n_first, staged, sums);
  } else if (!args.swiglu) {
    store_staged_words<false>(args, row, rows, n_first, staged, sums);
  } else {
    store_staged_words<true>(args, row, rows, n_first, staged, sums);
  }
}

}  // namespace fathom::ops::cuda

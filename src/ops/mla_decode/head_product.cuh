// A head's matrix, or a stripe of its rows, in shared memory times a few tokens, on any GPU from sm_80.
// Outputs have the bits that ops/linear gives: with bf16 weights one chain of k16 products in the order of k;
// with FP8 ones such a chain for each 128 of k, these scaled and added in order.
#pragma once

#include <type_traits>

#include "ops/linear/cuda.h"
#include "ops/linear/fp8_words.cuh"
#include "ops/mma.cuh"

namespace fathom::ops::cuda {

inline constexpr int kScaledBlock = 128;  // of k that one scale holds for

// Bytes from row to row of 16-bit values in shared memory: an odd number of 16-byte lines, so that ldmatrix
// meets no bank twice.
__host__ __device__ constexpr int row_pitch(int columns) {
  return columns * 2 + 16;
}

// Of a head, `rows` rows of the weight.
struct HeadMatrix {
  const uint8_t* data;  // of the first head's first row; the next stripe's rows come after its own
  const float* scales;  // FP8
  int64_t scales_step;  // from head to head
  int rows, stripes, k;

  // Every head's rows are cut into `stripe_count`, which divides them into multiples of sixteen.
  static HeadMatrix of(const Weight& weight, int stripe_count) {
    return {static_cast<const uint8_t*>(weight.data),  weight.scales, weight.scales_per_group(),
            static_cast<int>(weight.n) / stripe_count, stripe_count,  static_cast<int>(weight.k)};
  }
  // As many stripes as multiprocessors have room for, of `least_rows` or more each.
  static HeadMatrix in_stripes(const Weight& weight, const device::cuda::Gpu& gpu, int64_t least_rows) {
    int count = 1;
    while (weight.groups * count * 2 <= gpu.multiprocessors && weight.n % (count * 2 * 16) == 0 &&
           weight.n / (count * 2) >= least_rows) {
      count *= 2;
    }
    return of(weight, count);
  }
  static bool takes(const Weight& weight) {
    const int64_t unit = weight.dtype == device::DType::kBF16 ? 32 : kScaledBlock;
    return (weight.dtype == device::DType::kBF16 || weight.dtype == device::DType::kF8E4M3) &&
           !weight.parted && !weight.fp8_x && weight.k_stride == weight.k && weight.k % unit == 0 &&
           weight.n % 16 == 0 && reinterpret_cast<uintptr_t>(weight.data) % 16 == 0;
  }
};

template <bool kFp8>
class HeadProduct {
 public:
  // `memory`: bytes(matrix) of shared memory, at a multiple of 16.
  __device__ HeadProduct(const HeadMatrix& matrix, uint8_t* memory) : m_(matrix), memory_(memory) {}

  __host__ __device__ static int pitch(const HeadMatrix& m) { return kFp8 ? m.k + 16 : row_pitch(m.k); }
  __host__ __device__ static int bytes(const HeadMatrix& m) {
    return m.rows * pitch(m) + (kFp8 ? (m.k / kScaledBlock * (m.rows / 8) * 4 + 15) / 16 * 16 : 0);
  }

  // Asks for the stripe; copy_async_wait() waits for it. By `threads` threads.
  __device__ void load(int head, int stripe, int thread, int threads) const {
    constexpr int kSize = kFp8 ? 1 : 2;
    const int chunks = m_.k * kSize / 16;
    const uint8_t* from = m_.data + int64_t{head * m_.stripes + stripe} * m_.rows * m_.k * kSize;
    for (int i = thread; i < m_.rows * chunks; i += threads) {
      copy_async_16(memory_ + i / chunks * pitch(m_) + i % chunks * 16, from + int64_t{i} * 16, true);
    }
    if constexpr (kFp8) {
      const int groups = m_.rows / 8, all = groups * m_.stripes;
      const float* scales = m_.scales + head * m_.scales_step + stripe * groups;
      for (int i = thread; i < m_.k / kScaledBlock * groups; i += threads) {
        copy_async_4(scales_here() + i, scales + i / groups * all + i % groups, true);
      }
    }
  }

  // By a warp: rows [row, row + 16) times kTiles times eight tokens, rows of `tokens` that are row_pitch(k)
  // apart. As mma_bf16 has them: sums[t][i] is of row lane / 4 + i / 2 * 8, token 8 t + lane % 4 * 2 + i % 2.
  template <int kTiles>
  __device__ void run(int row, const uint8_t* tokens, float (&sums)[kTiles][4]) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[t][i] = 0.0F;
    }
    const int block = kFp8 ? kScaledBlock : m_.k;
    for (int first = 0; first < m_.k; first += block) {
      float part[kTiles][4] = {};
#pragma unroll 4
      for (int k = first; k < first + block; k += 32) {
        uint32_t a[2][4];
        load_weights(row, k, a);
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          uint32_t b[4];
          load_matrix_x4(b, tokens + (t * 8 + lane % 8) * row_pitch(m_.k) + k * 2 + lane / 8 * 16);
          mma_bf16(part[t], a[0], b);
          mma_bf16(part[t], a[1], b + 2);
        }
      }
      float2 scale = {1.0F, 1.0F};
      if constexpr (kFp8)
        scale = *reinterpret_cast<const float2*>(scales_here() + first / block * (m_.rows / 8) + row / 8);
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float factor = i < 2 ? scale.x : scale.y;
          sums[t][i] = kFp8 ? fmaf(factor, part[t][i], sums[t][i]) : sums[t][i] + part[t][i];
        }
      }
    }
  }

 private:
  __device__ float* scales_here() const { return reinterpret_cast<float*>(memory_ + m_.rows * pitch(m_)); }

  // Two of sixteen k from `k` on.
  __device__ void load_weights(int row, int k, uint32_t (&a)[2][4]) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if constexpr (kFp8) {
        const uint8_t* words = memory_ + (row + lane / 4) * pitch(m_) + k + half * 16 + lane % 4 * 4;
        fp8_word_to_bf16(*reinterpret_cast<const uint32_t*>(words), a[half][0], a[half][2]);
        fp8_word_to_bf16(*reinterpret_cast<const uint32_t*>(words + 8 * pitch(m_)), a[half][1], a[half][3]);
      } else {
        load_matrix_x4(a[half], memory_ + (row + lane % 16) * pitch(m_) + k * 2 + half * 32 + lane / 16 * 16);
      }
    }
  }

  const HeadMatrix& m_;
  uint8_t* memory_;
};

template <class Function>
void with_head_weights(const Weight& weight, const Function& function) {
  if (weight.dtype == device::DType::kF8E4M3)
    function(std::true_type{});
  else
    function(std::false_type{});
}

}  // namespace fathom::ops::cuda

// One row of RMSNorm on the GPU, for every kernel that ends in a norm: the same bits of the same row.
#pragma once

#include "ops/quantize/block.cuh"
#include "ops/vector/cuda.cuh"

namespace fathom::ops::cuda {

inline constexpr int64_t kMostNormWidth = 32768;

// Parts of eight that one thread holds, part p beginning at column (p * threads + thread) * 8: which thread
// adds which elements follows from the width alone.
constexpr int norm_parts(int64_t width) {
  return width <= 1024 ? 1 : width <= 8192 ? 2 : 4;
}
// Threads of the block that holds a row, and the most of them for so many parts.
constexpr unsigned norm_block(int64_t width) {
  const int parts = norm_parts(width);
  return static_cast<unsigned>((parts_of(width) + parts * 32 - 1) / (parts * 32) * 32);
}
constexpr int norm_threads(int parts) {
  return parts == 1 ? 128 : parts == 2 ? 512 : 1024;
}

#ifdef __CUDACC__
// A row by a block, whose threads hold kParts parts each.
template <int kParts>
struct BlockRow {
  static constexpr int kHeld = kParts;
  struct Shared {
    float sums[32];
  };
  Shared& shared;  // not in use

  __device__ int64_t index() const { return blockIdx.x; }
  __device__ static bool rehearses() { return false; }
  __device__ int64_t first(int p) const {
    return (p * static_cast<int64_t>(blockDim.x) + threadIdx.x) * kPart;
  }
  // The sum of the row's squares, for every thread; all threads call it.
  __device__ float squares(const Floats (&values)[kParts]) const {
    float sum = 0.0F;
#pragma unroll
    for (int p = 0; p < kParts; ++p) sum = add_squares(values[p], sum);
    return block_sum(sum, shared.sums);
  }
};

// The weights of what a thread holds: where registers last they come when this is made, which may be before
// the row is there.
template <bool kVectors, class Row>
class NormWeights {
 public:
  __device__ NormWeights(const Row& row, const float* weight, int64_t width)
      : row_(row), weight_(weight), width_(width) {
    if constexpr (kSoon) {
#pragma unroll
      for (int p = 0; p < Row::kHeld; ++p) {
        if (weight != nullptr) kept_[p] = load_part<kVectors>(weight, row.first(p), width);
      }
    }
  }
  __device__ Floats of(int p) const {
    if constexpr (kSoon)
      return kept_[p];
    else
      return load_part<kVectors>(weight_, row_.first(p), width_);
  }

 private:
  static constexpr bool kSoon = Row::kHeld <= 2;

  const Row& row_;
  const float* weight_;
  int64_t width_;
  Floats kept_[kSoon ? Row::kHeld : 1];
};

// y = values / sqrt(mean(values^2) + eps) * weight, and what y holds once more in FP8 where `rounded` has a
// place; all threads of the row (BlockRow, ClusterRow) call it. Of width 0, nothing is stored.
template <bool kVectors, class Row, class Y>
__device__ void norm_row(Row& row, const Floats (&values)[Row::kHeld],
                         const NormWeights<kVectors, Row>& weights, float eps, int64_t width, Y* y_row,
                         const QuantizedRowView& rounded) {
  const float scale = 1.0F / sqrtf(row.squares(values) / static_cast<float>(width) + eps);
#pragma unroll
  for (int p = 0; p < Row::kHeld; ++p) {
    const int64_t first = row.first(p);
    const Floats factors = weights.of(p);
    Floats out;
#pragma unroll
    for (int i = 0; i < kPart; ++i) out.v[i] = values[p].v[i] * scale * factors.v[i];
    store_part<kVectors>(y_row, first, width, out);
    if (rounded.values == nullptr) continue;
#pragma unroll
    for (int i = 0; i < kPart; ++i) out.v[i] = to_float(from_float<Y>(out.v[i]));
    quantize_part<kVectors>(rounded, first, width, out);
  }
}
#endif

}  // namespace fathom::ops::cuda

// The passes over one row of logits that cost time. Every version gives the same bits: they differ in how
// many elements they take at once, and nothing is contracted or reordered.
#pragma once

#include <cstdint>

namespace fathom::sample {

constexpr int64_t kBlock = 256;  // elements a partial sum covers
inline int64_t num_blocks(int64_t count) {
  return (count + kBlock - 1) / kBlock;
}

struct RowKernels {
  // The largest of x[count]; NaNs do not count. -inf when there is nothing else.
  float (*max)(const float* x, int64_t count);
  // weights[i] = exp((x[i] - highest) * scale), the argument rounded to float, the result within 2 ulp; 0
  // where that is below 1e-36 or x[i] is NaN. sums[num_blocks(count)]: of each block of weights. Needs x[i]
  // <= highest, highest finite, scale > 0.
  void (*weigh)(const float* x, int64_t count, float highest, float scale, float* weights, float* sums);
};

// The widest that this processor runs.
const RowKernels& row_kernels();

// All of them, for tests; those that this processor cannot run are null.
extern const RowKernels kPlainRowKernels;
const RowKernels* avx2_row_kernels();
const RowKernels* avx512_row_kernels();

}  // namespace fathom::sample

// y = x W^T (+ y) on the GPU: dense projections, the experts' grouped products over row counts that stay on
// the device, and the heads' batched ones.
//
// Weights are rows of k values, as in the checkpoint; FP8 stays FP8 in memory with one scale for each
// (8 rows, 128 of k). Such a weight multiplies activations as they are, or (fp8_x, on Hopper) rounded to FP8
// as well, which is twice the rate of the tensor cores and no widening. The value of an output is the same
// bits for any number and order of rows: every implementation of a target adds the products of one output in
// the same order of k (README.md).
#pragma once

#include "device/cuda/stream.h"
#include "ops/cuda_batch.h"
#include "ops/rms_norm/cuda.h"

namespace fathom::ops::cuda {

// `groups` matrices [n, k] of one shape, one after another. k_stride is k rounded up to 16, its padding zero.
inline constexpr int32_t kSumPart = 512;

struct Weight {
  const void* data = nullptr;                  // [groups, n, k_stride]
  const float* scales = nullptr;               // FP8: [groups, ceil(k / 128), ceil(n / 8)]
  device::DType dtype = device::DType::kBF16;  // F32, BF16 or F8E4M3
  int64_t n = 0, k = 0, k_stride = 0;
  int64_t groups = 1;
  bool fp8_x =
      false;  // FP8: multiplies LinearArgs::x8; the bytes lie as in the checkpoint (fp8_words.h: else not)
  // FP8 with fp8_x: in each 128 rows from a multiple of 128 on, and each 128 of k, the first eight rows'
  // scale is that of every other eight, and the second one's of the rest.
  bool paired_scales = false;
  // BF16, one group: an output is the sum of parts, each a chain over kSumPart of k, in their order, instead
  // of one chain over all of k: for a weight of few rows, whose reading takes less time than the chain.
  bool parted = false;

  // Whether it should be.
  constexpr bool pays_in_parts() const {
    constexpr int64_t kMostRows = 4096;
    return dtype == device::DType::kBF16 && groups == 1 && n <= kMostRows;
  }

  constexpr int64_t group_bytes() const { return n * k_stride * device::size_of(dtype); }
  constexpr int64_t scales_per_group() const { return (k + 127) / 128 * ((n + 7) / 8); }
};

// How the rows of x and y go with the weight's groups.
struct LinearArgs {
  Matrix x;  // [R, k] F32 or BF16
  Matrix y;  // [R, n] F32 or BF16; overwritten, or added to
  const Weight* weight = nullptr;
  bool accumulate = false;
  // y's columns are silu(gate) * up of the weight's rows, which come in turns of eight (swiglu/cuda.h): [R, n
  // / 2].
  bool swiglu = false;
  QuantizedMatrix x8 = {};  // [R, k] in place of x, where the weight takes it
};
void linear(device::cuda::Stream& stream, const LinearArgs& args);
// linear(product), then rms_norm(norm), whose x are the first columns of product.y; the same bits. One launch
// for a row of a short product.
void linear_and_norm(device::cuda::Stream& stream, const LinearArgs& product, const RmsNormArgs& norm);

// Group g's rows are [offsets[g], offsets[g + 1]); row r reads x row gather[r] (or r without gather).
struct GroupedLinearArgs {
  LinearArgs linear;                 // y has max_rows rows
  const int32_t* offsets = nullptr;  // [groups + 1] on the device
  const int32_t* gather = nullptr;   // [max_rows] on the device, or null
  int64_t max_rows = 0;              // offsets[groups] is never above it
  // A dense product of up to kMostBesideRows rows, done in the same launch where a kernel takes both, else
  // before it; the bits of linear() either way.
  const LinearArgs* beside = nullptr;
  // That one reads nothing of the kernel ahead of this call, which lets the next one start only once all
  // before itself has ended: it begins beside that kernel.
  bool beside_early = false;
  // The offsets are not the kernel's ahead of this call, and whoever wrote them had ended before that one let
  // this one start: weights come while it still runs. So do those of a call behind another with the same
  // offsets, which lets the next one start only once all before itself has ended.
  bool offsets_early = false;
};
inline constexpr int64_t kMostBesideRows = 16;
void grouped_linear(device::cuda::Stream& stream, const GroupedLinearArgs& args);

// y[t, h] = x[t, h] W_h^T: group h's x begins at column h * x_step of the row, its y at h * y_step.
struct BatchedLinearArgs {
  LinearArgs linear;
  int64_t x_step = 0, y_step = 0;  // in elements
};
void batched_linear(device::cuda::Stream& stream, const BatchedLinearArgs& args);

}  // namespace fathom::ops::cuda

// The GPU implementations of `linear` and the one form in which dense, grouped and batched calls reach them.
#pragma once

#include "base/math.h"
#include "ops/linear/cuda.h"

namespace fathom::ops::cuda {

// LinearArgs, GroupedLinearArgs or BatchedLinearArgs as a kernel sees them.
struct TileArgs {
  const void* x;
  void* y;
  const void* weight;
  const float* scales;
  const int32_t* offsets;  // grouped, or null
  const int32_t* gather;   // grouped, or null
  int64_t x_stride, y_stride;
  int64_t x_step, y_step;            // batched: elements from head to head
  int64_t weight_step, scales_step;  // from group to group, in elements
  int64_t k_stride;
  int32_t rows, n, k, groups;
  bool y_is_f32, accumulate, swiglu, paired_scales;
  bool offsets_early;      // GroupedLinearArgs
  int32_t part;            // of k, that is one chain of products: kSumPart, or all of it
  const float* x_scales;   // with Weight::fp8_x: x is FP8, x_stride in bytes
  int64_t x_scale_stride;  // from block to block of 128
};

struct TileCall {
  TileArgs args;
  device::DType x_dtype = device::DType::kBF16;
  device::DType weight_dtype = device::DType::kBF16;
  int64_t max_rows = 0;  // of all groups together; of each head when batched
  int64_t heads = 1;     // batched
  int64_t x_rows = 0;    // of x, which need not be max_rows where rows are gathered
  // A dense product in the same launch (GroupedLinearArgs), for the kernels that say that they take it.
  const TileCall* beside = nullptr;
  bool beside_early = false;
  // Of y's first columns, in the same launch (linear_and_norm), for the kernel that says that it takes it.
  const RmsNormArgs* norm = nullptr;

  // Tiles of `height` rows that cover any split of max_rows into groups.
  int64_t row_tiles(int64_t height) const {
    if (args.offsets == nullptr) return ceil_div(max_rows, height);
    const int64_t groups = args.groups;
    return (max_rows < groups ? max_rows : groups) + max_rows / height;
  }
  // Of a group on average: what a tile's width is chosen by.
  int64_t rows_of_a_group() const {
    return args.offsets != nullptr ? ceil_div<int64_t>(max_rows, args.groups) : max_rows;
  }
  // 16-row stripes of weights for each multiprocessor, counting a group once for 32 rows.
  int64_t stripes_per_multiprocessor(int64_t multiprocessors) const {
    const int64_t groups = args.offsets != nullptr ? row_tiles(32) : heads;
    return ceil_div<int64_t>(args.n, 16) * groups / multiprocessors;
  }
};

void linear_simt(device::cuda::Stream& stream, const TileCall& call);  // any types, any shape
void linear_mma(device::cuda::Stream& stream, const TileCall& call);   // BF16 x and weights
// The same for parted weights and up to 16 rows.
void linear_mma_parts(device::cuda::Stream& stream, const TileCall& call);
void linear_mma_fp8(device::cuda::Stream& stream, const TileCall& call);  // BF16 x, FP8 weights
// The same for 17 to 128 rows, or 1024 of a weight of up to 1024; sm_90a, k % 64 == 0. False when the shape
// is not for it.
bool linear_wgmma_parts(device::cuda::Stream& stream, const TileCall& call);
// sm_90a; BF16 x and weights, k % 64 == 0, 17 to 128 rows, not grouped. False when the shape is not for it.
bool linear_wgmma_few(device::cuda::Stream& stream, const TileCall& call);
// sm_90a; BF16 x and weights, k % 64 == 0, grouped, up to 32 rows of a group on average; or dense, up to 32
// rows and a weight of more tiles than CTAs. False when the shape is not for it.
bool linear_wgmma_experts(device::cuda::Stream& stream, const TileCall& call);
// Whether that takes call.beside too.
bool linear_wgmma_experts_beside(const TileCall& call);
// sm_90a; BF16 x and weights, k % 64 == 0, gather null. False when the shape is not for it.
bool linear_wgmma(device::cuda::Stream& stream, const TileCall& call);
// sm_90a; BF16 x, FP8 weights, gather null, not batched. False when the shape is not for it.
bool linear_wgmma_fp8(device::cuda::Stream& stream, const TileCall& call);
// sm_90a; BF16 x and y, FP8 weights, batched, n % 128 == 0, k % 128 == 0, more than 16 rows. False when the
// shape is not for it.
bool linear_wgmma_fp8_heads(device::cuda::Stream& stream, const TileCall& call);
// As linear_wgmma_fp8 for up to 64 rows (of a group); it chooses this one.
void linear_wgmma_fp8_turns(device::cuda::Stream& stream, const TileCall& call);
// sm_90a; FP8 x and weights (Weight::fp8_x), any shape; not batched.
void linear_wgmma_w8a8(device::cuda::Stream& stream, const TileCall& call);
// Whether that takes call.beside too, of such weights.
bool linear_wgmma_w8a8_beside(const TileCall& call);
// The same for up to 128 rows, not grouped; linear_wgmma_w8a8 chooses it. False when the shape is not for it.
bool linear_wgmma_w8a8_narrow(device::cuda::Stream& stream, const TileCall& call);
// The same for up to 8 rows, not grouped, of a weight whose sums over k are what takes its time;
// linear_wgmma_w8a8 chooses it. With call.norm too. False when the shape, or the norm, is not for it.
bool linear_wgmma_w8a8_chain(device::cuda::Stream& stream, const TileCall& call);
// The same for more than 64 rows (of a group); linear_wgmma_w8a8 chooses it. False when the shape is not for
// it.
bool linear_wgmma_w8a8_many(device::cuda::Stream& stream, const TileCall& call);

}  // namespace fathom::ops::cuda

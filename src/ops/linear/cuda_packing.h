// From a checkpoint's rows to the GPU's weights (cuda.h), on the GPU. For loading.
#pragma once

#include "device/cuda/stream.h"
#include "ops/linear/cuda.h"

namespace fathom::ops::cuda {

// Rows [row_begin, row_end) of a stored tensor, on the device: k columns of them, from first_col on. The
// weight's columns are counted from there.
struct StoredRows {
  const void* data = nullptr;
  device::DType dtype = device::DType::kBF16;  // F32, BF16, F16 or F8E4M3
  int64_t row_begin = 0, row_end = 0;
  int64_t k = 0;
  int64_t first_col = 0;
  const float* scales = nullptr;  // FP8: the whole tensor's [ceil(n / 128), scale_columns]
  int64_t scale_columns = 0;
};

// Where they go: weight group g takes the stored rows first_row + g * group_step + (0 .. rows - 1), as far as
// they are among StoredRows; the rest is left as it is.
struct PackPlan {
  Weight weight;  // its data and scales are written
  int64_t first_row = 0, rows = 0, group_step = 0;
  int64_t first_group = 0, groups = 1;
  int64_t offset = 0;       // the first row of the weight group that is written
  bool transposed = false;  // the weight is [k, rows]: stored columns become its rows
  int turn = -1;  // 0 or 1: eight rows of every sixteen, from 8 * turn on (gate and up); -1: consecutive
};

// Converts as it copies: FP8 is kept (its scales too) where the weight is FP8, else multiplied out. Sets
// *unsound (device, zero before) when a stored FP8 value is NaN or a scale is not finite.
void pack_rows(device::cuda::Stream& stream, const StoredRows& stored, const PackPlan& plan,
               int32_t* unsound);

// `to`, of the same shape and with memory of its own, becomes `from` (BF16, one group) in FP8: each 128 of k
// of eight rows in units of a 448th of their largest value.
void fp8_copy(device::cuda::Stream& stream, const Weight& from, const Weight& to);

// Columns [first_col, first_col + cols) of rows [row_begin, row_end) of a tensor with k columns.
struct RandomRows {
  int64_t row_begin = 0, row_end = 0;
  int64_t first_col = 0, cols = 0;
  int64_t k = 0;
};
// Fills them, one behind the other, with bell-shaped random values of the given deviation: a function of
// (seed, row, column). FP8: in units of `scale`.
void random_rows(device::cuda::Stream& stream, void* data, device::DType dtype, const RandomRows& rows,
                 uint64_t seed, float deviation, float scale);
void random_vector(device::cuda::Stream& stream, float* data, int64_t count, uint64_t seed, float mean,
                   float deviation);
// `count` values of a stored type to float32.
void widen_vector(device::cuda::Stream& stream, const void* stored, device::DType dtype, int64_t count,
                  float* data);

}  // namespace fathom::ops::cuda

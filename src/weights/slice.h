// The part of a stored matrix that one rank needs, and where it lies in the tensor's bytes.
#pragma once

#include <cstdint>

#include "device/dtype.h"

namespace fathom::weights {

// Rows [first_row, first_row + rows) and columns [first_col, first_col + cols) of a [n, k] tensor.
struct Slice {
  int64_t first_row = 0, rows = 0;
  int64_t first_col = 0, cols = 0;

  bool operator==(const Slice&) const = default;
  bool is_whole(int64_t n, int64_t k) const {
    return first_row == 0 && rows == n && first_col == 0 && cols == k;
  }
};

// `count` pieces of `bytes` bytes: piece i begins at first + i * step. Whole rows are one piece.
struct ByteRanges {
  int64_t first = 0, bytes = 0, step = 0, count = 0;
  int64_t total() const { return bytes * count; }
};

// Of a tensor with `k` columns.
constexpr ByteRanges byte_ranges(const Slice& slice, int64_t k, device::DType dtype) {
  const int64_t size = device::size_of(dtype);
  const int64_t first = (slice.first_row * k + slice.first_col) * size;
  if (slice.cols == k) return {first, slice.rows * k * size, slice.rows * k * size, 1};
  return {first, slice.cols * size, k * size, slice.rows};
}

// The scales of a slice of FP8 weights: of every block that it lies in or cuts.
constexpr Slice scale_slice(const Slice& slice, int64_t block = 128) {
  const int64_t row = slice.first_row / block;
  const int64_t col = slice.first_col / block;
  return {row, (slice.first_row + slice.rows + block - 1) / block - row, col,
          (slice.first_col + slice.cols + block - 1) / block - col};
}

}  // namespace fathom::weights

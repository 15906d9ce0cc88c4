// Descriptors for the bulk tensor copy engine of Hopper (TMA): how a tile of a matrix lies in memory. Passed
// to kernels by value, as a __grid_constant__ parameter.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "device/cuda/stream.h"

namespace fathom::device::cuda {

// Boxes of box_rows x box_columns 16-bit values of a row-major matrix; what lies outside reads as zero. Rows
// of a box are 128 bytes (box_columns 64) in the 128-byte swizzle that wgmma reads. `data` 16-byte aligned,
// row_bytes a multiple of 16. A failure is noted in the stream.
CUtensorMap tile_map_16bit(Stream& stream, const void* data, int64_t rows, int64_t columns, int64_t row_bytes,
                           int box_rows, int box_columns);
// The same of bytes; rows of a box are 128.
CUtensorMap tile_map_8bit(Stream& stream, const void* data, int64_t rows, int64_t columns, int64_t row_bytes,
                          int box_rows);
// Boxes of box_rows x box_columns bytes of a matrix whose rows follow each other in memory; in shared memory
// a box's rows do, too, without a swizzle. columns and box_columns multiples of 16.
CUtensorMap plain_map_8bit(Stream& stream, const void* data, int64_t rows, int64_t columns, int box_rows,
                           int box_columns);
// As tile_map_16bit, of `matrices` matrices, matrix_bytes apart, boxes in one of them: a third coordinate.
CUtensorMap tiles_map_16bit(Stream& stream, const void* data, int64_t matrices, int64_t rows, int64_t columns,
                            int64_t matrix_bytes, int64_t row_bytes, int box_rows, int box_columns);
// Boxes of box_rows whole rows of 16-bit values, which follow each other in memory; columns a multiple of 64.
// In shared memory too the rows follow each other, in pieces of 128 bytes; 16-byte chunk c of the box's piece
// p is at c ^ p % 8, where the box begins at a multiple of 1024 bytes (else p counts from there). So eight
// rows' chunks of the same columns lie in different banks, if a row's pieces are an odd number.
CUtensorMap row_map_16bit(Stream& stream, const void* data, int64_t rows, int64_t columns, int box_rows);

}  // namespace fathom::device::cuda

// How the GPU's ops see a step: arrays on the device, sized for the padded batch, so that one captured graph
// serves every step of its size.
#pragma once

#include <cstdint>

#include "device/dtype.h"

namespace fathom::ops::cuda {

// All pointers are device memory. Token t belongs to sequence slot slots[t] and stands at positions[t]; it
// sees places 0 .. positions[t]. A padding token has positions[t] == -1: ops that read or write the cache
// skip it (places[t] and slots[t] are then undefined), other ops may compute garbage in its rows.
struct BatchView {
  int64_t tokens = 0;                     // T, padding included
  const int32_t* positions = nullptr;     // [T]
  const int64_t* places = nullptr;        // [T] page * page_size + offset: where the token's entry goes
  const int32_t* slots = nullptr;         // [T]
  const int32_t* block_tables = nullptr;  // [slots, table_stride] pages of each slot's sequence
  int64_t table_stride = 0;
};

// One layer's pages of the latent (or plain) cache; ops/kv_cache.h says what an entry holds.
struct CacheView {
  void* data = nullptr;                        // [pages, page_size, width]
  device::DType dtype = device::DType::kBF16;  // kF32, kBF16, kF8E4M3 or kF8E5M2
  int64_t page_size = 0;
  int64_t width = 0;
};

// A matrix of activations: F32 or BF16, `columns` contiguous, rows `stride` elements apart.
struct Matrix {
  void* data = nullptr;
  device::DType dtype = device::DType::kBF16;
  int64_t rows = 0, columns = 0;
  int64_t stride = 0;

  Matrix() = default;
  Matrix(void* data_in, device::DType type, int64_t rows_in, int64_t columns_in, int64_t stride_in = 0)
      : data(data_in),
        dtype(type),
        rows(rows_in),
        columns(columns_in),
        stride(stride_in != 0 ? stride_in : columns_in) {}

  Matrix slice(int64_t begin, int64_t end) const {  // columns [begin, end)
    return {static_cast<uint8_t*>(data) + begin * device::size_of(dtype), dtype, rows, end - begin, stride};
  }
  Matrix first_rows(int64_t count) const { return {data, dtype, count, columns, stride}; }
  Matrix row_range(int64_t begin, int64_t end) const {
    return {static_cast<uint8_t*>(data) + begin * stride * device::size_of(dtype), dtype, end - begin,
            columns, stride};
  }
};

// Activations rounded to FP8 E4M3 in blocks of 128 columns of a row (ops/quantize): value = values[r, c] *
// scales[c / 128, r]. Rows of values are `stride` bytes apart, a multiple of 16; what lies between columns
// and stride is never read as a value. Empty: values == nullptr.
struct QuantizedMatrix {
  uint8_t* values = nullptr;  // [rows, stride]
  float* scales = nullptr;    // [ceil(columns / 128), scale_stride]
  int64_t rows = 0, columns = 0;
  int64_t stride = 0, scale_stride = 0;

  QuantizedMatrix first_rows(int64_t count) const {
    return {values, scales, count, columns, stride, scale_stride};
  }
  QuantizedMatrix row_range(int64_t begin, int64_t end) const {
    return {values + begin * stride, scales + begin, end - begin, columns, stride, scale_stride};
  }
};

}  // namespace fathom::ops::cuda

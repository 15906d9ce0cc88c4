#include "device/cuda/tensor_map.h"

#include <cuda_runtime_api.h>

namespace fathom::device::cuda {
namespace {

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                            const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave,
                            CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// Asked of the driver at run time: the binary must start where there is none.
Encode find_encode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t status =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
  return status == cudaSuccess && found == cudaDriverEntryPointSuccess ? reinterpret_cast<Encode>(function)
                                                                       : nullptr;
}

// `size` and `box` in values, `stride` in bytes, of the dimensions after the first.
template <int kDimensions>
CUtensorMap make_map(Stream& stream, CUtensorMapDataType type, const void* data,
                     const cuuint64_t (&size)[kDimensions], const cuuint64_t (&stride)[kDimensions - 1],
                     const cuuint32_t (&box)[kDimensions],
                     CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_128B) {
  static const Encode encode = find_encode();
  CUtensorMap map{};
  cuuint32_t step[kDimensions];
  for (cuuint32_t& each : step) each = 1;
  const bool ok =
      encode != nullptr && encode(&map, type, kDimensions, const_cast<void*>(data), size, stride, box, step,
                                  CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
  if (!ok) stream.note(cudaErrorInvalidValue, "tensor map");
  return map;
}

CUtensorMap tile_map(Stream& stream, CUtensorMapDataType type, const void* data, int64_t rows,
                     int64_t columns, int64_t row_bytes, int box_rows, int box_columns) {
  return make_map<2>(stream, type, data, {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)},
                     {static_cast<cuuint64_t>(row_bytes)},
                     {static_cast<cuuint32_t>(box_columns), static_cast<cuuint32_t>(box_rows)});
}

}  // namespace

CUtensorMap tile_map_16bit(Stream& stream, const void* data, int64_t rows, int64_t columns, int64_t row_bytes,
                           int box_rows, int box_columns) {
  return tile_map(stream, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, data, rows, columns, row_bytes, box_rows,
                  box_columns);
}

CUtensorMap tile_map_8bit(Stream& stream, const void* data, int64_t rows, int64_t columns, int64_t row_bytes,
                          int box_rows) {
  return tile_map(stream, CU_TENSOR_MAP_DATA_TYPE_UINT8, data, rows, columns, row_bytes, box_rows, 128);
}

CUtensorMap plain_map_8bit(Stream& stream, const void* data, int64_t rows, int64_t columns, int box_rows,
                           int box_columns) {
  return make_map<2>(
      stream, CU_TENSOR_MAP_DATA_TYPE_UINT8, data,
      {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)}, {static_cast<cuuint64_t>(columns)},
      {static_cast<cuuint32_t>(box_columns), static_cast<cuuint32_t>(box_rows)}, CU_TENSOR_MAP_SWIZZLE_NONE);
}

CUtensorMap tiles_map_16bit(Stream& stream, const void* data, int64_t matrices, int64_t rows, int64_t columns,
                            int64_t matrix_bytes, int64_t row_bytes, int box_rows, int box_columns) {
  return make_map<3>(
      stream, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, data,
      {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows), static_cast<cuuint64_t>(matrices)},
      {static_cast<cuuint64_t>(row_bytes), static_cast<cuuint64_t>(matrix_bytes)},
      {static_cast<cuuint32_t>(box_columns), static_cast<cuuint32_t>(box_rows), 1});
}

CUtensorMap row_map_16bit(Stream& stream, const void* data, int64_t rows, int64_t columns, int box_rows) {
  const auto pieces = static_cast<cuuint64_t>(columns / 64);
  return make_map<3>(stream, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, data,
                     {64, pieces, static_cast<cuuint64_t>(rows)}, {128, pieces * 128},
                     {64, static_cast<cuuint32_t>(pieces), static_cast<cuuint32_t>(box_rows)});
}

}  // namespace fathom::device::cuda

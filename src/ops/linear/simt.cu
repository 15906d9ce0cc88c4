// Float32 activations on any GPU: plain multiply-adds over 64 x 64 tiles. Each output is one chain of fused
// multiply-adds in the order of k.
#include <cuda_fp8.h>

#include "ops/linear/cuda_kernels.h"
#include "ops/linear/cuda_tiles.cuh"
#include "ops/linear/fp8_words.h"

namespace fathom::ops::cuda {
namespace {

constexpr int kTile = 64;
constexpr int kDepth = 16;

__device__ inline float widen(float value) {
  return value;
}
__device__ inline float widen(__nv_bfloat16 value) {
  return __bfloat162float(value);
}

// Column k of a row of weights.
template <class W>
__device__ inline float weight_at(const W* row, int k) {
  if constexpr (sizeof(W) == 1) {
    const Fp8Place place = fp8_place(k);
    __nv_fp8_e4m3 value;
    value.__x = fp8_value(reinterpret_cast<const uint32_t*>(row)[place.word], place.value);
    return static_cast<float>(value);
  } else {
    return widen(row[k]);
  }
}

template <class X, class W>
__global__ void __launch_bounds__(256) simt_kernel(TileArgs args) {
  constexpr bool kFp8 = sizeof(W) == 1;
  __shared__ float x_tile[kDepth][kTile + 4];
  __shared__ float w_tile[kDepth][kTile + 4];
  __shared__ RowTile shared_tile;

  RowTile tile{static_cast<int32_t>(blockIdx.z), static_cast<int32_t>(blockIdx.y) * kTile, 0};
  if (args.offsets != nullptr) {
    if (threadIdx.x < 32) {
      const RowTile found = find_row_tile(args, static_cast<int32_t>(blockIdx.y), kTile);
      if (threadIdx.x == 0) shared_tile = found;
    }
    __syncthreads();
    tile = shared_tile;
  } else {
    tile.count = min(kTile, args.rows - tile.first);
  }
  if (tile.count <= 0) return;

  const int n_first = static_cast<int>(blockIdx.x) * kTile;
  const bool batched = args.offsets == nullptr;
  const X* x = static_cast<const X*>(args.x) + (batched ? tile.group * args.x_step : 0);
  const W* weight = static_cast<const W*>(args.weight) + tile.group * args.weight_step;
  const float* scales = kFp8 ? args.scales + tile.group * args.scales_step : nullptr;

  const int row_of = static_cast<int>(threadIdx.x) / 16;  // 4 rows and 4 columns a thread
  const int column_of = static_cast<int>(threadIdx.x) % 16;
  float sum[4][4] = {};
  for (int k_first = 0; k_first < args.k; k_first += kDepth) {
    for (int i = static_cast<int>(threadIdx.x); i < kTile * kDepth; i += 256) {
      const int line = i / kDepth;
      const int k = k_first + i % kDepth;
      float value = 0.0F;
      if (line < tile.count && k < args.k) {
        const int64_t row = args.gather != nullptr ? args.gather[tile.first + line] : tile.first + line;
        value = widen(x[row * args.x_stride + k]);
      }
      x_tile[i % kDepth][line] = value;
      value = 0.0F;
      const int n = n_first + line;
      if (n < args.n && k < args.k) {
        value = weight_at(weight + n * args.k_stride, k);
        if constexpr (kFp8) value *= scales[static_cast<int64_t>(k / 128) * ((args.n + 7) / 8) + n / 8];
      }
      w_tile[i % kDepth][line] = value;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          sum[r][c] = fmaf(x_tile[k][row_of * 4 + r], w_tile[k][c * 16 + column_of], sum[r][c]);
        }
      }
    }
    __syncthreads();
  }

  const int64_t y_base = batched ? tile.group * args.y_step : 0;
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const int line = row_of * 4 + r;
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int n = n_first + c * 16 + column_of;
      float value = sum[r][c];
      if (args.swiglu) {
        // The thread eight columns on holds the up of this gate.
        const float up = __shfl_down_sync(0xffffffffU, value, 8);
        if (column_of < 8 && line < tile.count && n < args.n) {
          store_output(args, y_base, tile.first + line, n / 16 * 8 + n % 8, silu(value) * up);
        }
      } else if (line < tile.count && n < args.n) {
        store_output(args, y_base, tile.first + line, n, value);
      }
    }
  }
}

template <class X>
void launch(device::cuda::Stream& stream, const TileArgs& args, device::DType weight, dim3 grid) {
  switch (weight) {
    case device::DType::kF32:
      simt_kernel<X, float><<<grid, 256, 0, stream.handle()>>>(args);
      return;
    case device::DType::kBF16:
      simt_kernel<X, __nv_bfloat16><<<grid, 256, 0, stream.handle()>>>(args);
      return;
    default:
      simt_kernel<X, __nv_fp8_e4m3><<<grid, 256, 0, stream.handle()>>>(args);
  }
}

}  // namespace

void linear_simt(device::cuda::Stream& stream, const TileCall& call) {
  const dim3 grid(static_cast<unsigned>((call.args.n + kTile - 1) / kTile),
                  static_cast<unsigned>(call.row_tiles(kTile)), static_cast<unsigned>(call.heads));
  if (call.x_dtype == device::DType::kF32) {
    launch<float>(stream, call.args, call.weight_dtype, grid);
  } else {
    launch<__nv_bfloat16>(stream, call.args, call.weight_dtype, grid);
  }
  stream.launched("linear (simt)");
}

}  // namespace fathom::ops::cuda

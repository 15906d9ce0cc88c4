#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include "base/check.h"
#include "ops/linear/cuda_packing.h"
#include "ops/linear/fp8_words.h"

namespace fathom::ops::cuda {
namespace {

using device::DType;

constexpr int kRows = 8, kColumns = 128;  // of a scale
constexpr int kThreads = kRows * 32;
constexpr float kLargest = 448.0F;

// A CTA makes what has one scale: a warp a row, a lane a word.
__global__ void __launch_bounds__(kThreads) fp8_copy_kernel(Weight from, Weight to, int64_t eights) {
  __shared__ float tops[kRows];
  const int64_t eight = blockIdx.x % eights, block = blockIdx.x / eights;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t row = eight * kRows + warp;
  const int64_t word = block * (kColumns / 4) + lane;
  const bool there = row < from.n && word * 4 < from.k_stride;
  const auto* values = static_cast<const __nv_bfloat16*>(from.data) + row * from.k_stride;
  float x[4] = {};
  float top = 0.0F;
  if (there) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      x[i] = __bfloat162float(values[fp8_column({word, i})]);
      top = fmaxf(top, fabsf(x[i]));
    }
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffU, top, step));
  if (lane == 0) tops[warp] = top;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kRows; ++i) top = fmaxf(top, tops[i]);
  const float scale = top > 0.0F ? top / kLargest : 1.0F;
  if (threadIdx.x == 0) const_cast<float*>(to.scales)[block * eights + eight] = scale;
  if (!there) return;
  uint32_t bits = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) bits |= fp8_bits(__nv_fp8_e4m3(x[i] / scale).__x, i);
  auto* words = reinterpret_cast<uint32_t*>(const_cast<uint8_t*>(static_cast<const uint8_t*>(to.data)) +
                                            row * to.k_stride);
  words[word] = bits;
}

}  // namespace

void fp8_copy(device::cuda::Stream& stream, const Weight& from, const Weight& to) {
  FATHOM_CHECK(from.dtype == DType::kBF16 && to.dtype == DType::kF8E4M3 && from.n == to.n && from.k == to.k &&
                   from.k_stride == to.k_stride && from.groups == 1 && to.groups == 1,
               "an FP8 copy [{}, {}] of [{}, {}]", to.n, to.k, from.n, from.k);
  const int64_t eights = (from.n + kRows - 1) / kRows;
  const int64_t blocks = (from.k + kColumns - 1) / kColumns;
  fp8_copy_kernel<<<static_cast<unsigned>(eights * blocks), kThreads, 0, stream.handle()>>>(from, to, eights);
  stream.launched("FP8 copy");
}

}  // namespace fathom::ops::cuda

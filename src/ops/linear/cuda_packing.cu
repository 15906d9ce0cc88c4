#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "ops/linear/cuda_packing.h"
#include "ops/linear/fp8_words.h"

namespace fathom::ops::cuda {
namespace {

using device::DType;

constexpr int kThreads = 256;

unsigned blocks_for(int64_t count) {
  return static_cast<unsigned>(std::min<int64_t>((count + kThreads - 1) / kThreads, 1 << 20));
}

__device__ inline float load(const void* data, DType dtype, int64_t at) {
  switch (dtype) {
    case DType::kF32:
      return static_cast<const float*>(data)[at];
    case DType::kBF16:
      return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[at]);
    case DType::kF16:
      return __half2float(static_cast<const __half*>(data)[at]);
    default:
      return static_cast<float>(static_cast<const __nv_fp8_e4m3*>(data)[at]);
  }
}

__device__ inline void store(void* data, DType dtype, int64_t at, float value) {
  if (dtype == DType::kF32) {
    static_cast<float*>(data)[at] = value;
  } else if (dtype == DType::kBF16) {
    static_cast<__nv_bfloat16*>(data)[at] = __float2bfloat16(value);
  } else {
    static_cast<__nv_fp8_e4m3*>(data)[at] = static_cast<__nv_fp8_e4m3>(value);
  }
}

// Of a weight group: the row that stored row `row` becomes.
__device__ inline int64_t row_to(const PackPlan& plan, int64_t row) {
  return plan.offset + (plan.turn < 0 ? row : row / 8 * 16 + plan.turn * 8 + row % 8);
}
__device__ inline int64_t first_row(const PackPlan& plan, int64_t group) {
  return plan.first_row + group * plan.group_step;
}

__global__ void pack_kernel(StoredRows stored, PackPlan plan, int32_t* unsound) {
  const int64_t count = plan.rows * stored.k;
  const int64_t group = plan.first_group + blockIdx.y;
  const Weight& w = plan.weight;
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    // As the weight counts its elements: k fastest.
    const int64_t width = plan.transposed ? plan.rows : stored.k;
    const int64_t line = i / width, k = i % width;
    const int64_t row = first_row(plan, group) + (plan.transposed ? k : line);
    const int64_t column = plan.transposed ? line : k;
    if (row < stored.row_begin || row >= stored.row_end) continue;
    float value = load(stored.data, stored.dtype, (row - stored.row_begin) * stored.k + column);
    if (stored.dtype == DType::kF8E4M3) {
      value *= stored.scales[row / 128 * stored.scale_columns + (stored.first_col + column) / 128];
      if (!isfinite(value)) *unsound = 1;
    }
    const int64_t to = plan.transposed ? line : row_to(plan, line);
    store(const_cast<void*>(w.data), w.dtype, (group * w.n + to) * w.k_stride + k, value);
  }
}

// FP8 that stays FP8: a thread makes a word, as far as its values are among the stored rows. kPlain: four
// columns as they are; else fp8_words.h.
template <bool kPlain>
__global__ void pack_words_kernel(StoredRows stored, PackPlan plan, int32_t* unsound) {
  const int64_t group = plan.first_group + blockIdx.y;
  const Weight& w = plan.weight;
  const int64_t width = plan.transposed ? plan.rows : stored.k;
  const int64_t words = (width + 15) / 16 * 4;
  const int64_t lines = plan.transposed ? stored.k : plan.rows;
  const auto* from = static_cast<const uint8_t*>(stored.data);
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < lines * words;
       i += int64_t{gridDim.x} * blockDim.x) {
    const int64_t line = i / words;
    const int64_t word = i % words;
    uint32_t bits = 0, mask = 0;
    for (int value = 0; value < 4; ++value) {
      const int64_t k = kPlain ? word * 4 + value : fp8_column({word, value});
      const uint32_t own = kPlain ? 0xffU << (8 * value) : fp8_mask(value);
      if (k >= width) {  // what fills the last words is zero
        mask |= own;
        continue;
      }
      const int64_t row = first_row(plan, group) + (plan.transposed ? k : line);
      const int64_t column = plan.transposed ? line : k;
      if (row < stored.row_begin || row >= stored.row_end) continue;
      const uint8_t f8 = from[(row - stored.row_begin) * stored.k + column];
      if ((f8 & 0x7f) == 0x7f) *unsound = 1;
      bits |= kPlain ? static_cast<uint32_t>(f8) << (8 * value) : fp8_bits(f8, value);
      mask |= own;
    }
    const int64_t to = plan.transposed ? line : row_to(plan, line);
    auto* place = reinterpret_cast<uint32_t*>(const_cast<uint8_t*>(static_cast<const uint8_t*>(w.data)) +
                                              (group * w.n + to) * w.k_stride) +
                  word;
    // One call may bring a part of a word and the next one the rest.
    if (mask != 0) *place = (*place & ~mask) | bits;
  }
}

// One scale for each (128 of k, 8 rows) of the weight, from the stored block that holds them all.
__global__ void scale_kernel(StoredRows stored, PackPlan plan, int32_t* unsound) {
  const int64_t columns = (plan.transposed ? plan.rows : stored.k) + 127;
  const int64_t eights = ((plan.transposed ? stored.k : plan.rows) + 7) / 8;
  const int64_t group = plan.first_group + blockIdx.y;
  const Weight& w = plan.weight;
  const int64_t line = (w.n + 7) / 8;
  float* scales = const_cast<float*>(w.scales) + group * w.scales_per_group();
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < columns / 128 * eights;
       i += int64_t{gridDim.x} * blockDim.x) {
    const int64_t block = i / eights;
    const int64_t eight = i % eights;
    int64_t row = plan.first_row + group * plan.group_step;
    int64_t column = 0;
    if (plan.transposed) {
      row += block * 128;
      column = eight * 8;
    } else {
      row += eight * 8;
      column = block * 128;
    }
    if (row < stored.row_begin || row >= stored.row_end) continue;
    const float scale = stored.scales[row / 128 * stored.scale_columns + (stored.first_col + column) / 128];
    if (!isfinite(scale)) *unsound = 1;
    const int64_t to = plan.offset / 8 + (plan.turn < 0 ? eight : eight * 2 + plan.turn);
    scales[block * line + to] = scale;
  }
}

// SplitMix64's output function (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
__device__ inline uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

// Deviation 1, within 3.5: the sum of four uniform 16-bit numbers.
__device__ inline float bell(uint64_t seed, int64_t i) {
  const uint64_t bits = mix(seed + static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15ULL);
  const auto sum =
      static_cast<int64_t>((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48)) -
      2 * 0xffff;
  return static_cast<float>(sum) * (1.7320508F / 65536.0F);
}

__global__ void random_kernel(void* data, DType dtype, RandomRows rows, uint64_t seed, float factor) {
  const int64_t count = (rows.row_end - rows.row_begin) * rows.cols;
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    const int64_t row = rows.row_begin + i / rows.cols;
    store(data, dtype, i, bell(seed, row * rows.k + rows.first_col + i % rows.cols) * factor);
  }
}

__global__ void random_vector_kernel(float* data, int64_t count, uint64_t seed, float mean, float deviation) {
  const int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (i < count) data[i] = mean + deviation * bell(seed, i);
}

__global__ void widen_kernel(const void* stored, DType dtype, int64_t count, float* data) {
  const int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (i < count) data[i] = load(stored, dtype, i);
}

}  // namespace

void pack_rows(device::cuda::Stream& stream, const StoredRows& stored, const PackPlan& plan,
               int32_t* unsound) {
  const dim3 grid(blocks_for(plan.rows * stored.k), static_cast<unsigned>(plan.groups));
  if (plan.weight.dtype != DType::kF8E4M3) {
    pack_kernel<<<grid, kThreads, 0, stream.handle()>>>(stored, plan, unsound);
    return stream.launched("pack rows");
  }
  const auto kernel = plan.weight.fp8_x ? pack_words_kernel<true> : pack_words_kernel<false>;
  kernel<<<grid, kThreads, 0, stream.handle()>>>(stored, plan, unsound);
  stream.launched("pack rows");
  const dim3 few(4, static_cast<unsigned>(plan.groups));
  scale_kernel<<<few, kThreads, 0, stream.handle()>>>(stored, plan, unsound);
  stream.launched("pack scales");
}

void random_rows(device::cuda::Stream& stream, void* data, DType dtype, const RandomRows& rows, uint64_t seed,
                 float deviation, float scale) {
  const float factor = dtype == DType::kF8E4M3 ? deviation / scale : deviation;
  random_kernel<<<blocks_for((rows.row_end - rows.row_begin) * rows.cols), kThreads, 0, stream.handle()>>>(
      data, dtype, rows, seed, factor);
  stream.launched("random rows");
}

void random_vector(device::cuda::Stream& stream, float* data, int64_t count, uint64_t seed, float mean,
                   float deviation) {
  random_vector_kernel<<<blocks_for(count), kThreads, 0, stream.handle()>>>(data, count, seed, mean,
                                                                            deviation);
  stream.launched("random vector");
}

void widen_vector(device::cuda::Stream& stream, const void* stored, DType dtype, int64_t count, float* data) {
  widen_kernel<<<blocks_for(count), kThreads, 0, stream.handle()>>>(stored, dtype, count, data);
  stream.launched("widen vector");
}

}  // namespace fathom::ops::cuda

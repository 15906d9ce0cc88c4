#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "ops/linear/cuda_packing.h"

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

// Where column k of an FP8 row lies (README.md): the four values that a thread of a matrix instruction takes
// from 16 columns are neighbours.
__device__ inline int64_t fp8_place(int64_t k) {
  const int64_t within = k % 16;
  return k - within + within % 8 / 2 * 4 + within % 2 + within / 8 * 2;
}

struct Place {
  int64_t row = 0, column = 0;  // of the stored tensor
  int64_t to = 0;               // row of the weight group
};

// Element i of the group as the weight counts them: k fastest.
__device__ inline Place place_of(const PackPlan& plan, const StoredRows& stored, int64_t group, int64_t i) {
  Place place;
  if (plan.transposed) {
    place.to = i / plan.rows;
    place.column = place.to;
    place.row = plan.first_row + group * plan.group_step + i % plan.rows;
  } else {
    const int64_t row = i / stored.k;
    place.row = plan.first_row + group * plan.group_step + row;
    place.column = i % stored.k;
    place.to = plan.offset + (plan.turn < 0 ? row : row / 8 * 16 + plan.turn * 8 + row % 8);
  }
  return place;
}

__global__ void pack_kernel(StoredRows stored, PackPlan plan, int32_t* unsound) {
  const int64_t count = plan.rows * stored.k;
  const int64_t group = plan.first_group + blockIdx.y;
  const Weight& w = plan.weight;
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    const Place place = place_of(plan, stored, group, i);
    if (place.row < stored.row_begin || place.row >= stored.row_end) continue;
    const int64_t from = (place.row - stored.row_begin) * stored.k + place.column;
    const int64_t k = plan.transposed ? i % plan.rows : place.column;
    const int64_t line = (group * w.n + place.to) * w.k_stride;
    if (w.dtype == DType::kF8E4M3) {
      const uint8_t bits = static_cast<const uint8_t*>(stored.data)[from];
      if ((bits & 0x7f) == 0x7f) *unsound = 1;
      const_cast<uint8_t*>(static_cast<const uint8_t*>(w.data))[line + fp8_place(k)] = bits;
      continue;
    }
    float value = load(stored.data, stored.dtype, from);
    if (stored.dtype == DType::kF8E4M3) {
      value *= stored.scales[place.row / 128 * ((stored.k + 127) / 128) + place.column / 128];
      if (!isfinite(value)) *unsound = 1;
    }
    store(const_cast<void*>(w.data), w.dtype, line + k, value);
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
    const float scale = stored.scales[row / 128 * ((stored.k + 127) / 128) + column / 128];
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

__global__ void random_kernel(void* data, DType dtype, int64_t first, int64_t count, uint64_t seed,
                              float factor) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    store(data, dtype, i, bell(seed, first + i) * factor);
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
  pack_kernel<<<grid, kThreads, 0, stream.handle()>>>(stored, plan, unsound);
  stream.launched("pack rows");
  if (plan.weight.dtype != DType::kF8E4M3) return;
  const dim3 few(4, static_cast<unsigned>(plan.groups));
  scale_kernel<<<few, kThreads, 0, stream.handle()>>>(stored, plan, unsound);
  stream.launched("pack scales");
}

void random_rows(device::cuda::Stream& stream, void* data, DType dtype, int64_t row_begin, int64_t row_end,
                 int64_t k, uint64_t seed, float deviation, float scale) {
  const int64_t count = (row_end - row_begin) * k;
  const float factor = dtype == DType::kF8E4M3 ? deviation / scale : deviation;
  random_kernel<<<blocks_for(count), kThreads, 0, stream.handle()>>>(data, dtype, row_begin * k, count, seed,
                                                                     factor);
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

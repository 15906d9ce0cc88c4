#include <algorithm>

#include "base/check.h"
#include "base/math.h"
#include "ops/extend_attention/kernels.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kQueries = 32, kKeys = 32;     // of a tile
constexpr int kGroup = kThreads / kQueries;  // threads of a query
constexpr int kMaxValue = 256;

struct Params {
  const void* q;
  const void* kv;
  const void* k_rope;
  void* out;
  int64_t q_stride, kv_stride, rope_stride, out_stride;
  const ExtendRow* rows;
  int heads, nope, rope, value;
  float scale;
  float* partial;
  float* lse;
};

// Copies `count` rows of `columns` values (a multiple of 8) into shared memory as float32; the rows up to
// `rows` become zero.
template <class T>
__device__ void stage(float* to, int to_stride, const T* from, int64_t from_stride, int columns, int count,
                      int rows) {
  const int vectors = columns / 8;
  for (int i = static_cast<int>(threadIdx.x); i < rows * vectors; i += kThreads) {
    const int row = i / vectors, d = i % vectors * 8;
    float values[8] = {};
    if (row < count) load8(from + row * from_stride + d, values);
#pragma unroll
    for (int j = 0; j < 8; ++j) to[row * to_stride + d + j] = values[j];
  }
}

// A CTA: kQueries queries of one head of one row. Eight threads share a query: in the scores each takes every
// eighth key of the tile, in the values every eighth column.
template <class T, int kColumns>
__global__ void __launch_bounds__(kThreads) extend_attention_portable_kernel(Params params) {
  extern __shared__ float shared[];
  const ExtendRow row = params.rows[blockIdx.z];
  const int first = static_cast<int>(blockIdx.x) * kQueries;
  const int count = min(kQueries, row.count - first);
  if (count <= 0 || ExtendEpilogue::done(row, row.start + first + count - 1)) return;
  const int h = static_cast<int>(blockIdx.y);
  const int key = params.nope + params.rope;
  const int key_stride = key + 1;  // odd: threads of a warp read different rows
  float* q = shared;
  float* k = q + kQueries * key_stride;
  float* v = k + kKeys * key_stride;
  float* scores = v + kKeys * params.value;

  stage(q, key_stride,
        static_cast<const T*>(params.q) + (row.first + first) * params.q_stride + int64_t{h} * key,
        params.q_stride, key, count, kQueries);
  const int query = static_cast<int>(threadIdx.x) / kGroup, part = static_cast<int>(threadIdx.x) % kGroup;
  const int position = row.start + first + query;
  const int last_position = row.start + first + count - 1;
  float top = -INFINITY, sum = 0;
  float values[kColumns] = {};
  const int keys_end = min(row.key_end, last_position + 1);
  for (int begin = row.key_begin; begin < keys_end; begin += kKeys) {
    const int keys = min(kKeys, keys_end - begin);
    const int64_t key_row = row.key_row + (begin - row.key_begin);
    const T* kv = static_cast<const T*>(params.kv) + key_row * params.kv_stride +
                  int64_t{h} * (params.nope + params.value);
    __syncthreads();
    stage(k, key_stride, kv, params.kv_stride, params.nope, keys, kKeys);
    stage(k + params.nope, key_stride, static_cast<const T*>(params.k_rope) + key_row * params.rope_stride,
          params.rope_stride, params.rope, keys, kKeys);
    stage(v, params.value, kv + params.nope, params.kv_stride, params.value, keys, kKeys);
    __syncthreads();
    float mine[kKeys / kGroup] = {};
    for (int d = 0; d < key; ++d) {
      const float x = q[query * key_stride + d];
#pragma unroll
      for (int j = 0; j < kKeys / kGroup; ++j) {
        mine[j] = fmaf(x, k[(part + j * kGroup) * key_stride + d], mine[j]);
      }
    }
    float new_top = top;
#pragma unroll
    for (int j = 0; j < kKeys / kGroup; ++j) {
      const int place = begin + part + j * kGroup;
      mine[j] = place <= position && place < row.key_end ? mine[j] * params.scale : -INFINITY;
      new_top = fmaxf(new_top, mine[j]);
    }
#pragma unroll
    for (int step = 1; step < kGroup; step *= 2) {
      new_top = fmaxf(new_top, __shfl_xor_sync(0xffffffffU, new_top, step));
    }
    const float base = new_top == -INFINITY ? 0.0F : new_top;
    const float rescale = exp2f(top - base);
    top = new_top;
    float tile_sum = 0;
#pragma unroll
    for (int j = 0; j < kKeys / kGroup; ++j) {
      mine[j] = exp2f(mine[j] - base);
      tile_sum += mine[j];
      scores[query * kKeys + part + j * kGroup] = mine[j];
    }
#pragma unroll
    for (int step = 1; step < kGroup; step *= 2) {
      tile_sum += __shfl_xor_sync(0xffffffffU, tile_sum, step);
    }
    sum = fmaf(sum, rescale, tile_sum);
    __syncwarp();  // a query's threads are of one warp
#pragma unroll
    for (int c = 0; c < kColumns; ++c) values[c] *= rescale;
    for (int i = 0; i < kKeys; ++i) {
      const float weight = scores[query * kKeys + i];
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int d = part + c * kGroup;
        if (d < params.value) values[c] = fmaf(weight, v[i * params.value + d], values[c]);
      }
    }
    __syncwarp();
  }

  const int64_t t = row.first + first + min(query, count - 1);
  const int64_t stat = t * params.heads + h;
  const float inverse = 1.0F / sum;
  const float lse = top + log2f(sum);
  const bool last = ExtendEpilogue::last(row, position);
  const ExtendMerge merge = row.merge != 0 ? ExtendMerge(params.lse[stat], lse) : ExtendMerge(lse);
  __syncwarp();  // every thread of the query has read lse before one of them writes it
  if (query >= count || ExtendEpilogue::done(row, position)) return;
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    const int d = part + c * kGroup;
    if (d >= params.value) break;
    float value = values[c] * inverse;
    float* partial = params.partial + stat * params.value + d;
    if (row.merge != 0) value = fmaf(*partial, merge.old_share, value * merge.new_share);
    if (!last)
      *partial = value;
    else
      static_cast<T*>(params.out)[t * params.out_stride + int64_t{h} * params.value + d] =
          static_cast<T>(value);
  }
  if (!last && part == 0) params.lse[stat] = merge.lse;
}

}  // namespace

void extend_attention_portable(device::cuda::Stream& stream, const ExtendAttentionArgs& args) {
  FATHOM_CHECK(args.value <= kMaxValue, "value {}", args.value);
  Params params;
  params.q = args.q.data;
  params.kv = args.kv.data;
  params.k_rope = args.k_rope.data;
  params.out = args.out.data;
  params.q_stride = args.q.stride;
  params.kv_stride = args.kv.stride;
  params.rope_stride = args.k_rope.stride;
  params.out_stride = args.out.stride;
  params.rows = args.rows;
  params.heads = static_cast<int>(args.heads);
  params.nope = static_cast<int>(args.nope);
  params.rope = static_cast<int>(args.k_rope.columns);
  params.value = static_cast<int>(args.value);
  params.scale = args.scale * kLog2E;
  params.partial = args.partial;
  params.lse = args.lse;

  int32_t longest = 0;
  for (int64_t i = 0; i < args.num_rows; ++i) longest = std::max(longest, args.host_rows[i].count);
  const int key = params.nope + params.rope;
  const size_t shared = sizeof(float) * static_cast<size_t>((kQueries + kKeys) * (key + 1) +
                                                            kKeys * params.value + kQueries * kKeys);
  FATHOM_CHECK(static_cast<int64_t>(shared) <= stream.gpu().shared_bytes_per_block,
               "key {} and value {} need {} bytes of shared memory", key, params.value, shared);
  const dim3 grid(static_cast<unsigned>(ceil_div(longest, kQueries)), static_cast<unsigned>(args.heads),
                  static_cast<unsigned>(args.num_rows));
  const auto launch = [&](auto* kernel) {
    stream.note(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
        "extend_attention");
    kernel<<<grid, kThreads, shared, stream.handle()>>>(params);
  };
  const bool bf16 = args.q.dtype == device::DType::kBF16;
  if (params.value <= 128)
    bf16 ? launch(&extend_attention_portable_kernel<__nv_bfloat16, 16>)
         : launch(&extend_attention_portable_kernel<float, 16>);
  else
    bf16 ? launch(&extend_attention_portable_kernel<__nv_bfloat16, 32>)
         : launch(&extend_attention_portable_kernel<float, 32>);
  stream.launched("extend_attention");
}

}  // namespace fathom::ops::cuda

#include "base/check.h"
#include "ops/attention/paged_flash.cuh"
#include "ops/mha_attention/cuda.h"

namespace fathom::ops::cuda {
namespace {

struct Params {
  Activations q, out;
  int64_t q_stride, out_stride;
  const void* cache;
  int64_t page_size, width;
  BatchView batch;
  Branches branches;
  int heads, key, value;
  float scale;
  SplitUnits units = kSmallUnits;
};

// A CTA is one head of one token.
template <class T>
__global__ void __launch_bounds__(kPagedFlashThreads) mha_attention_kernel(Params params) {
  extern __shared__ __align__(16) unsigned char shared[];
  const PagedFlashMemory<1> memory(shared, params.key, params.value);
  const int h = static_cast<int>(blockIdx.x);
  const int64_t t = blockIdx.y;
  const int length = params.batch.positions[t] + 1;
  if (length <= 0) return;
  for (int i = static_cast<int>(threadIdx.x); i < params.key; i += kPagedFlashThreads) {
    memory.q[i] = params.q.load(t * params.q_stride + int64_t{h} * params.key + i) * params.scale;
  }
  const PagedEntries<T> cache{static_cast<const T*>(params.cache),
                              params.batch.block_tables + params.batch.slots[t] * params.batch.table_stride,
                              params.page_size,
                              params.width,
                              int64_t{h} * params.key,
                              int64_t{params.heads} * params.key + int64_t{h} * params.value,
                              tail_of(params.branches, t)};
  const int level =
      paged_flash<1>(memory, cache, params.key, params.value, 0, length, params.units.places(length));
  const float inverse = __frcp_rn(memory.sums[level]);
  for (int i = static_cast<int>(threadIdx.x); i < params.value; i += kPagedFlashThreads) {
    params.out.store(t * params.out_stride + int64_t{h} * params.value + i,
                     memory.values[level * params.value + i] * inverse);
  }
}

}  // namespace

void mha_attention(device::cuda::Stream& stream, const MhaAttentionArgs& args) {
  FATHOM_CHECK(args.key % 8 == 0 && args.value % 8 == 0, "key {} and value {}", args.key, args.value);
  FATHOM_CHECK(args.cache.width == args.heads * (args.key + args.value), "a cache of width {} for {} heads",
               args.cache.width, args.heads);
  FATHOM_CHECK(args.q.columns == args.heads * args.key && args.out.columns == args.heads * args.value,
               "q has {} columns, out {}", args.q.columns, args.out.columns);
  FATHOM_CHECK(args.q.rows >= args.batch.tokens && args.out.rows >= args.batch.tokens,
               "q has {} rows, out {}, for {} tokens", args.q.rows, args.out.rows, args.batch.tokens);
  const int64_t shared = PagedFlashMemory<1>::bytes(args.key, args.value);
  FATHOM_CHECK(shared <= (48 << 10), "key {} and value {} are too wide", args.key, args.value);
  Params params;
  params.q = {args.q.data, args.q.dtype == device::DType::kBF16};
  params.out = {args.out.data, args.out.dtype == device::DType::kBF16};
  params.q_stride = args.q.stride;
  params.out_stride = args.out.stride;
  params.cache = args.cache.data;
  params.page_size = args.cache.page_size;
  params.width = args.cache.width;
  params.heads = static_cast<int>(args.heads);
  params.key = static_cast<int>(args.key);
  params.value = static_cast<int>(args.value);
  params.scale = args.scale * kLog2E;
  // A grid's second dimension is below 65536.
  for (int64_t begin = 0; begin < args.batch.tokens; begin += 32768) {
    const int64_t tokens = std::min<int64_t>(32768, args.batch.tokens - begin);
    const Matrix q = args.q.row_range(begin, begin + tokens), out = args.out.row_range(begin, begin + tokens);
    params.q.data = q.data;
    params.out.data = out.data;
    params.batch = args.batch;
    params.batch.positions += begin;
    params.batch.slots += begin;
    params.branches = args.branches.from(begin);
    with_cache_type(args.cache.dtype, [&]<class T>(const T*) {
      const dim3 grid(static_cast<unsigned>(args.heads), static_cast<unsigned>(tokens));
      mha_attention_kernel<T>
          <<<grid, kPagedFlashThreads, static_cast<size_t>(shared), stream.handle()>>>(params);
    });
    stream.launched("mha_attention");
  }
}

}  // namespace fathom::ops::cuda

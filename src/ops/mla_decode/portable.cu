#include "base/check.h"
#include "base/math.h"
#include "ops/attention/paged_flash.cuh"
#include "ops/mla_decode/kernels.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kHeads = 8;  // of a CTA

struct Params {
  Activations q, out;
  int64_t q_stride, out_stride;
  const void* cache;
  int64_t page_size;
  const int32_t* positions;
  const int32_t* slots;
  const int32_t* block_tables;
  int64_t table_stride;
  Branches branches;
  int tokens, heads, latent, width;
  float scale;
  SplitWorkspace workspace;
};

template <class T>
__global__ void __launch_bounds__(kPagedFlashThreads) mla_decode_portable_kernel(Params params) {
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ SplitPlan plan;
  const PagedFlashMemory<kHeads> memory(shared, params.width, params.latent);
  make_split_plan(plan, params.positions, params.slots, params.tokens, params.workspace);
  if (blockIdx.x == 0)
    publish_split_plan(plan, params.tokens, params.workspace, static_cast<int>(threadIdx.x),
                       static_cast<int>(blockDim.x));

  const int groups = (params.heads + kHeads - 1) / kHeads;
  for (int index = static_cast<int>(blockIdx.x); index < plan.items * groups;
       index += static_cast<int>(gridDim.x)) {
    const SplitItem item = split_item(plan, params.tokens, index / groups);
    const int first_head = index % groups * kHeads;
    const int heads = min(kHeads, params.heads - first_head);
    for (int i = static_cast<int>(threadIdx.x); i < kHeads * params.width; i += kPagedFlashThreads) {
      memory.q[i] =
          i < heads * params.width
              ? params.q.load(item.token * params.q_stride + int64_t{first_head} * params.width + i) *
                    params.scale
              : 0.0F;
    }
    const PagedEntries<T> cache{static_cast<const T*>(params.cache),
                                params.block_tables + item.sequence * params.table_stride,
                                params.page_size,
                                params.width,
                                0,
                                0,
                                tail_of(params.branches, item.token)};
    const int level = paged_flash<kHeads>(memory, cache, params.width, params.latent, item.begin, item.end,
                                          item.unit_places);
    const float* values = memory.values + level * kHeads * params.latent;
    const float* tops = memory.tops + level * kHeads;
    const float* sums = memory.sums + level * kHeads;
    for (int i = static_cast<int>(threadIdx.x); i < heads * params.latent; i += kPagedFlashThreads) {
      const int64_t column = int64_t{first_head} * params.latent + i;
      if (item.slot < 0) {
        params.out.store(item.token * params.out_stride + column,
                         __fmul_rn(values[i], __frcp_rn(sums[i / params.latent])));
      } else {
        static_cast<float*>(
            params.workspace.partial)[int64_t{item.slot} * params.heads * params.latent + column] = values[i];
      }
    }
    if (item.slot >= 0 && threadIdx.x < heads) {
      params.workspace.stats[int64_t{item.slot} * params.heads + first_head + threadIdx.x] =
          make_float2(tops[threadIdx.x], sums[threadIdx.x]);
    }
    __syncthreads();  // the next item overwrites what was read here
  }
}

}  // namespace

int64_t mla_decode_portable_items(const device::cuda::Gpu& gpu, int64_t heads) {
  return ceil_div<int64_t>(4 * gpu.multiprocessors, ceil_div<int64_t>(heads, kHeads));
}

void mla_decode_portable(device::cuda::Stream& stream, const MlaDecodeArgs& args,
                         const SplitWorkspace& workspace) {
  Params params;
  params.q = {args.q.data, args.q.dtype == device::DType::kBF16};
  params.out = {args.out.data, args.out.dtype == device::DType::kBF16};
  params.q_stride = args.q.stride;
  params.out_stride = args.out.stride;
  params.cache = args.cache.data;
  params.page_size = args.cache.page_size;
  params.positions = args.batch.positions;
  params.slots = args.batch.slots;
  params.block_tables = args.batch.block_tables;
  params.table_stride = args.batch.table_stride;
  params.branches = args.branches;
  params.tokens = static_cast<int>(args.batch.tokens);
  params.heads = static_cast<int>(args.heads);
  params.latent = static_cast<int>(args.latent);
  params.width = static_cast<int>(args.cache.width);
  params.scale = args.scale * kLog2E;
  params.workspace = workspace;

  const int64_t shared = PagedFlashMemory<kHeads>::bytes(params.width, params.latent);
  FATHOM_CHECK(shared + static_cast<int64_t>(sizeof(SplitPlan)) <= stream.gpu().shared_bytes_per_block,
               "mla_decode of latent {} and width {} needs {} bytes of shared memory", params.latent,
               params.width, shared);
  const int64_t groups = ceil_div<int64_t>(params.heads, kHeads);
  const int64_t most_items = workspace.units.most_units(args.max_context) * args.batch.tokens;
  const int64_t grid = std::min<int64_t>(2 * stream.gpu().multiprocessors, most_items * groups);
  with_cache_type(args.cache.dtype, [&]<class T>(const T*) {
    auto* kernel = &mla_decode_portable_kernel<T>;
    stream.note(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
        "mla_decode");
    kernel<<<static_cast<unsigned>(grid), kPagedFlashThreads, static_cast<size_t>(shared), stream.handle()>>>(
        params);
  });
  stream.launched("mla_decode");
}

}  // namespace fathom::ops::cuda

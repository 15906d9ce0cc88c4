// Everything between the projections and mla_decode in one kernel, for few tokens. A CTA has one head, or a
// stripe of its rows of w_kc, which come while the kernel before still runs; eight warps multiply. Four more
// rotate the head's queries, and those of the first CTAs write the tokens' entries. Bit for bit what
// batched_linear(), rope() and latent_write() give.
#include "ops/mla_decode/queries.h"

#include "base/check.h"
#include "device/cuda/shared_memory.h"
#include "ops/kv_write/latent.cuh"
#include "ops/linear/cuda_tiles.cuh"
#include "ops/mla_decode/head_product.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kProductWarps = 8, kProductThreads = kProductWarps * 32;
constexpr int kOtherThreads = 128;
constexpr int kThreads = kProductThreads + kOtherThreads;
constexpr int kMostTokens = 32;
constexpr int kMostBytes = 226 << 10;      // and what is static
constexpr int64_t kLeastBytes = 16 << 10;  // of w_kc a CTA

template <class C>
struct Params {
  int tokens;
  HeadMatrix weight;  // w_kc
  const bf16* q;      // head h's first k values at h * q_step
  int64_t q_stride, q_step;
  bf16* y;  // head h's at h * y_step
  int64_t y_stride, y_step;
  const int32_t* positions;
  HeadsView<bf16, bf16> heads;
  LatentView<bf16, C, bf16> latent;
};

template <int kTiles, bool kFp8, class C>
__device__ void multiply(const Params<C>& p, uint8_t* memory, int head, int stripe) {
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const HeadProduct<kFp8> product(p.weight, memory);
  uint8_t* queries = memory + product.bytes(p.weight);
  // The weights are nobody's output: they come while the kernel before this one still runs.
  product.load(head, stripe, thread, kProductThreads);
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();
  // Lines past the last token's keep what they hold: nobody stores their products.
  const int chunks = p.weight.k / 8;
  for (int i = thread; i < p.tokens * chunks; i += kProductThreads) {
    const int t = i / chunks, chunk = i % chunks;
    copy_async_16(queries + t * row_pitch(p.weight.k) + chunk * 16,
                  p.q + t * p.q_stride + head * p.q_step + chunk * 8, true);
  }
  copy_async_commit();
  copy_async_wait<0>();
  named_barrier_sync(1, kProductThreads);

  for (int row = warp * 16; row < p.weight.rows; row += kProductWarps * 16) {
    float sums[kTiles][4];
    product.run(row, queries, sums);
    bf16* y = p.y + head * p.y_step + stripe * p.weight.rows + row + lane % 4 * 2;
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      // Turned round, so that a token's are neighbours.
      const uint32_t low = transpose_8x8(pack_outputs(sums[t][0], sums[t][1]));
      const uint32_t high = transpose_8x8(pack_outputs(sums[t][2], sums[t][3]));
      const int token = t * 8 + lane / 4;
      if (token >= p.tokens) continue;
      *reinterpret_cast<uint32_t*>(y + token * p.y_stride) = low;
      *reinterpret_cast<uint32_t*>(y + token * p.y_stride + 8) = high;
    }
  }
}

template <class C>
__device__ void rotate_and_write(const Params<C>& p, int head, bool rotates) {
  __shared__ float sums[2][kOtherThreads / 32];
  const int thread = static_cast<int>(threadIdx.x) - kProductThreads;
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();
  int turn = 0;
  for (int t = static_cast<int>(blockIdx.x); t < p.tokens; t += static_cast<int>(gridDim.x)) {
    const int64_t position = p.positions[t];
    if (position < 0) continue;
    write_latent<true>(p.latent, t, position, thread, [&](float value) {
      float* parts = sums[turn++ % 2];  // the last token's may still be read
      value = warp_sum(value);
      if (thread % 32 == 0) parts[thread / 32] = value;
      named_barrier_sync(2, kOtherThreads);
      float sum = 0.0F;
      for (int w = 0; w < kOtherThreads / 32; ++w) sum += parts[w];
      return sum;
    });
  }
  if (!rotates) return;
  const auto parts = static_cast<int>(parts_of(2 * p.latent.table.half));
  for (int i = thread; i < p.tokens * parts; i += kOtherThreads) {
    const int t = i / parts;
    const int64_t position = p.positions[t];
    if (position >= 0)
      rotate_part<true>(p.heads, p.latent.table, t, position, int64_t{head} * parts + i % parts);
  }
}

template <int kTiles, bool kFp8, class C>
__global__ void __launch_bounds__(kThreads, 2) mla_queries_kernel(const __grid_constant__ Params<C> p) {
  extern __shared__ __align__(16) uint8_t memory[];
  const int stripes = p.weight.stripes;
  const int head = static_cast<int>(blockIdx.x) / stripes, stripe = static_cast<int>(blockIdx.x) % stripes;
  if (threadIdx.x < kProductThreads) {
    multiply<kTiles, kFp8>(p, memory, head, stripe);
  } else {
    rotate_and_write(p, head, stripe == 0);
  }
}

template <bool kFp8>
int bytes_of(const HeadMatrix& weight, int tiles) {
  return HeadProduct<kFp8>::bytes(weight) + tiles * 8 * row_pitch(weight.k);
}

template <int kTiles, bool kFp8, class C>
void launch(device::cuda::Stream& stream, const Params<C>& params) {
  const auto kernel = mla_queries_kernel<kTiles, kFp8, C>;
  static device::cuda::SharedMemory memory;
  if (!memory.allow(stream, kernel, kMostBytes)) return;
  const auto blocks = static_cast<unsigned>(params.heads.heads * params.weight.stripes);
  device::cuda::launch_early(stream, kernel, dim3(blocks), dim3(kThreads),
                             bytes_of<kFp8>(params.weight, kTiles), params);
}

// No smaller than that: multiprocessors that are left take the kernel behind, which needs all of one's shared
// memory, early.
HeadMatrix stripes_of(const Weight& weight, const device::cuda::Gpu& gpu) {
  return HeadMatrix::in_stripes(weight, gpu, kLeastBytes / (weight.k * device::size_of(weight.dtype)));
}

bool takes(const device::cuda::Gpu& gpu, const MlaQueriesArgs& args) {
  using device::DType;
  const Weight& w = *args.weight;
  const RopeArgs& q = args.q;
  const LatentWriteArgs& latent = args.latent;
  const auto aligned = [](const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; };
  return gpu.major >= 9 && q.x.rows <= kMostTokens && HeadMatrix::takes(w) &&
         bytes_of<false>(stripes_of(w, gpu), kMostTokens / 8) <= kMostBytes && q.x.dtype == DType::kBF16 &&
         q.y.dtype == DType::kBF16 && latent.kv_a.dtype == DType::kBF16 && latent.copy.data == nullptr &&
         aligned(q.x.data) && q.x.stride % 8 == 0 && q.width % 8 == 0 && q.y.stride % 2 == 0 &&
         q.y_head_stride % 2 == 0 && takes_parts(q) && latent_takes_parts(latent) &&
         latent_parts(latent) <= kOtherThreads;
}

}  // namespace

bool mla_queries(device::cuda::Stream& stream, const MlaQueriesArgs& args) {
  const Weight& w = *args.weight;
  check_together(args.q, args.latent);
  const int64_t rope = 2 * args.q.table.half;
  FATHOM_CHECK(w.groups == args.q.heads && w.k == args.q.width - rope && w.n == args.q.y_offset,
               "w_kc: {} of [{}, {}] for {} heads of {}, rotated to column {}", w.groups, w.n, w.k,
               args.q.heads, args.q.width, args.q.y_offset);
  if (args.q.x.rows == 0) return true;
  if (!takes(stream.gpu(), args)) return false;
  with_cache_type(args.latent.cache.dtype, [&]<class C>(C*) {
    Params<C> params;
    params.tokens = static_cast<int>(args.q.x.rows);
    params.weight = stripes_of(w, stream.gpu());
    params.q = static_cast<const bf16*>(args.q.x.data);
    params.q_stride = args.q.x.stride;
    params.q_step = args.q.width;
    params.y = static_cast<bf16*>(args.q.y.data);
    params.y_stride = args.q.y.stride;
    params.y_step = args.q.y_head_stride;
    params.positions = args.q.positions;
    params.heads = heads_view<bf16, bf16>(args.q);
    params.latent = latent_view<bf16, C, bf16>(args.latent);
    with_head_weights(w, [&](auto fp8) {
      constexpr bool kFp8 = decltype(fp8)::value;
      if (params.tokens <= 8)
        launch<1, kFp8>(stream, params);
      else if (params.tokens <= 16)
        launch<2, kFp8>(stream, params);
      else
        launch<4, kFp8>(stream, params);
    });
  });
  stream.launched("mla_queries");
  return true;
}

}  // namespace fathom::ops::cuda

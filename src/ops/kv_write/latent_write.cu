#include "device/cuda/launch_kernel.h"
#include "ops/kv_write/cuda.h"
#include "ops/rope/rotate.cuh"
#include "ops/vector/cuda.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int64_t kMaxParts = 1024;
constexpr int kFusedThreads = 128;

template <class X, class C, class Y>
struct LatentView {
  const X* kv_a;
  int64_t stride, latent;
  const float* weight;
  float eps;
  RopeView table;
  const int64_t* places;
  C* cache;
  Y* copy;
  int64_t copy_stride;
};

template <class X, class C, class Y>
LatentView<X, C, Y> latent_view(const LatentWriteArgs& args) {
  return {static_cast<const X*>(args.kv_a.data),
          args.kv_a.stride,
          args.kv_a.columns - 2 * args.rope.half,
          args.norm_weight,
          args.eps,
          args.rope,
          args.batch.places,
          static_cast<C*>(args.cache.data),
          static_cast<Y*>(args.copy.data),
          args.copy.stride};
}

// Token t, by a CTA with a thread for each part: first the latent's, then the rope's. More threads do not
// change the sum.
template <bool kVectors, class X, class C, class Y>
__device__ void write_latent(const LatentView<X, C, Y>& view, int64_t t, int64_t position) {
  __shared__ float shared[32];
  const int64_t rope = 2 * view.table.half;
  const int64_t latent_parts = parts_of(view.latent);
  const bool in_latent = threadIdx.x < latent_parts;
  const int64_t first = (in_latent ? threadIdx.x : threadIdx.x - latent_parts) * kPart;
  const int64_t begin = in_latent ? 0 : view.latent;
  const int64_t width = in_latent ? view.latent : rope;

  Floats x = load_part<kVectors>(view.kv_a + t * view.stride + begin, first, width);
  const float sum = block_sum(in_latent ? add_squares(x, 0.0F) : 0.0F, shared);
  if (in_latent) {
    const float scale = 1.0F / sqrtf(sum / static_cast<float>(view.latent) + view.eps);
    const Floats factors = load_part<kVectors>(view.weight, first, view.latent);
#pragma unroll
    for (int i = 0; i < kPart; ++i) x.v[i] = x.v[i] * scale * factors.v[i];
  } else if (first < rope) {
    x = rotate<kVectors>(x, view.table, position, first);
  }
  store_part<kVectors>(view.cache + view.places[t] * (view.latent + rope) + begin, first, width, x);
  if (view.copy != nullptr) {
    store_part<kVectors>(view.copy + t * view.copy_stride + begin, first, width, x);
  }
}

template <bool kVectors, class X, class C, class Y>
__global__ void latent_write_kernel(LatentView<X, C, Y> view, const int32_t* positions) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();

  const int64_t position = positions[blockIdx.x];
  if (position >= 0) write_latent<kVectors>(view, blockIdx.x, position);
}

// CTAs (t, 0) write token t's entry; (t, 1), ... rotate its heads.
template <class X, class C>
__global__ void __launch_bounds__(kFusedThreads)
    rope_and_latent_kernel(HeadsView<X, X> heads, LatentView<X, C, X> view, const int32_t* positions) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();

  const int64_t position = positions[blockIdx.x];
  if (position < 0) return;
  if (blockIdx.y == 0) {
    write_latent<true>(view, blockIdx.x, position);
  } else {
    const int64_t i = static_cast<int64_t>(blockIdx.y - 1) * kFusedThreads + threadIdx.x;
    rotate_part<true>(heads, view.table, blockIdx.x, position, i);
  }
}

void check(const LatentWriteArgs& args) {
  const Matrix& x = args.kv_a;
  const int64_t rope = 2 * args.rope.half;
  FATHOM_CHECK(rope > 0 && x.columns > rope && x.rows == args.batch.tokens && args.cache.width == x.columns,
               "kv_a [{}, {}] with {} rotated, {} tokens, a cache of width {}", x.rows, x.columns, rope,
               args.batch.tokens, args.cache.width);
  FATHOM_CHECK(args.copy.data == nullptr || (args.copy.rows == x.rows && args.copy.columns == x.columns),
               "a copy [{}, {}] of kv_a [{}, {}]", args.copy.rows, args.copy.columns, x.rows, x.columns);
}

int64_t parts(const LatentWriteArgs& args) {
  const int64_t rope = 2 * args.rope.half;
  return parts_of(args.kv_a.columns - rope) + parts_of(rope);
}

bool latent_takes_parts(const LatentWriteArgs& args) {
  const int64_t width = args.kv_a.columns;
  const int64_t latent = width - 2 * args.rope.half;
  return latent % kPart == 0 && takes_parts(args.kv_a) && takes_parts(args.rope) &&
         takes_parts(args.norm_weight, sizeof(float), latent, 0) &&
         takes_parts(args.cache.data, device::size_of(args.cache.dtype), width, width) &&
         (args.copy.data == nullptr || takes_parts(args.copy));
}

}  // namespace

void latent_write(device::cuda::Stream& stream, const LatentWriteArgs& args) {
  check(args);
  FATHOM_CHECK(parts(args) <= kMaxParts, "kv_a is {} wide: over {}", args.kv_a.columns, kMaxParts * kPart);
  if (args.kv_a.rows == 0) return;
  const auto rows = static_cast<unsigned>(args.kv_a.rows);
  const auto threads = static_cast<unsigned>((parts(args) + 31) / 32 * 32);
  const device::DType copy_dtype = args.copy.data == nullptr ? device::DType::kF32 : args.copy.dtype;
  with_flag(latent_takes_parts(args), [&](auto flag) {
    with_activation_type(args.kv_a.dtype, "kv_a", [&](auto* x_null) {
      with_activation_type(copy_dtype, "the copy", [&](auto* copy_null) {
        with_cache_type(args.cache.dtype, [&](auto* cache_null) {
          using X = std::remove_pointer_t<decltype(x_null)>;
          using Y = std::remove_pointer_t<decltype(copy_null)>;
          using C = std::remove_pointer_t<decltype(cache_null)>;
          device::cuda::launch_early(stream, latent_write_kernel<decltype(flag)::value, X, C, Y>, rows,
                                     threads, 0, latent_view<X, C, Y>(args), args.batch.positions);
        });
      });
    });
  });
  stream.launched("latent_write");
}

void rope_and_latent_write(device::cuda::Stream& stream, const RopeArgs& q, const LatentWriteArgs& latent) {
  check_rope(q);
  check(latent);
  FATHOM_CHECK(q.x.rows == latent.kv_a.rows && q.positions == latent.batch.positions &&
                   q.table.half == latent.rope.half && q.table.cos == latent.rope.cos,
               "q [{}, {}] and kv_a [{}, {}] of different batches or tables", q.x.rows, q.x.columns,
               latent.kv_a.rows, latent.kv_a.columns);
  const device::DType dtype = q.x.dtype;
  const bool one_dtype = q.y.dtype == dtype && latent.kv_a.dtype == dtype &&
                         (latent.copy.data == nullptr || latent.copy.dtype == dtype);
  if (!one_dtype || parts(latent) > kFusedThreads || !takes_parts(q) || !latent_takes_parts(latent)) {
    rope(stream, q);
    latent_write(stream, latent);
    return;
  }
  if (q.x.rows == 0) return;
  const int64_t head_parts = q.heads * parts_of(2 * q.table.half);
  const dim3 grid(static_cast<unsigned>(q.x.rows),
                  static_cast<unsigned>(1 + (head_parts + kFusedThreads - 1) / kFusedThreads));
  with_activation_type(dtype, "q", [&](auto* x_null) {
    with_cache_type(latent.cache.dtype, [&](auto* cache_null) {
      using X = std::remove_pointer_t<decltype(x_null)>;
      using C = std::remove_pointer_t<decltype(cache_null)>;
      device::cuda::launch_early(stream, rope_and_latent_kernel<X, C>, grid, kFusedThreads, 0,
                                 heads_view<X, X>(q), latent_view<X, C, X>(latent), q.positions);
    });
  });
  stream.launched("rope_and_latent_write");
}

}  // namespace fathom::ops::cuda

#include "device/cuda/launch_kernel.h"
#include "ops/kv_write/latent.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int64_t kMaxParts = 1024;
constexpr int kFusedThreads = 128;

template <bool kVectors, class X, class C, class Y>
__global__ void latent_write_kernel(LatentView<X, C, Y> view, const int32_t* positions) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();

  const int64_t position = positions[blockIdx.x];
  if (position < 0) return;
  __shared__ float shared[32];
  write_latent<kVectors>(view, blockIdx.x, position, threadIdx.x,
                         [&](float value) { return block_sum(value, shared); });
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
    __shared__ float shared[32];
    write_latent<true>(view, blockIdx.x, position, threadIdx.x,
                       [&](float value) { return block_sum(value, shared); });
  } else {
    const int64_t i = static_cast<int64_t>(blockIdx.y - 1) * kFusedThreads + threadIdx.x;
    rotate_part<true>(heads, view.table, blockIdx.x, position, i);
  }
}

}  // namespace

void latent_write(device::cuda::Stream& stream, const LatentWriteArgs& args) {
  check_latent(args);
  FATHOM_CHECK(latent_parts(args) <= kMaxParts, "kv_a is {} wide: over {}", args.kv_a.columns,
               kMaxParts * kPart);
  if (args.kv_a.rows == 0) return;
  const auto rows = static_cast<unsigned>(args.kv_a.rows);
  const auto threads = static_cast<unsigned>((latent_parts(args) + 31) / 32 * 32);
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
  check_together(q, latent);
  const device::DType dtype = q.x.dtype;
  const bool one_dtype = q.y.dtype == dtype && latent.kv_a.dtype == dtype &&
                         (latent.copy.data == nullptr || latent.copy.dtype == dtype);
  if (!one_dtype || latent_parts(latent) > kFusedThreads || !takes_parts(q) || !latent_takes_parts(latent)) {
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

#include "ops/kv_write/cuda.h"
#include "ops/rope/rotate.cuh"
#include "ops/vector/cuda.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int64_t kMaxParts = 1024;

// A CTA a token, a thread a part: first the latent's, then the rope's.
template <bool kVectors, class X, class C, class Y>
__global__ void latent_write_kernel(const X* kv_a, int64_t stride, int64_t latent, const float* weight,
                                    float eps, RopeView table, const int32_t* positions,
                                    const int64_t* places, C* cache, Y* copy, int64_t copy_stride) {
  __shared__ float shared[32];
  const int64_t position = positions[blockIdx.x];
  if (position < 0) return;
  const int64_t rope = 2 * table.half;
  const int64_t latent_parts = parts_of(latent);
  const bool in_latent = threadIdx.x < latent_parts;
  const int64_t first = (in_latent ? threadIdx.x : threadIdx.x - latent_parts) * kPart;
  const int64_t begin = in_latent ? 0 : latent;
  const int64_t width = in_latent ? latent : rope;

  Floats x = load_part<kVectors>(kv_a + blockIdx.x * stride + begin, first, width);
  const float sum = block_sum(in_latent ? add_squares(x, 0.0F) : 0.0F, shared);
  if (in_latent) {
    const float scale = 1.0F / sqrtf(sum / static_cast<float>(latent) + eps);
    const Floats factors = load_part<kVectors>(weight, first, latent);
#pragma unroll
    for (int i = 0; i < kPart; ++i) x.v[i] = x.v[i] * scale * factors.v[i];
  } else if (first < rope) {
    x = rotate<kVectors>(x, table, position, first);
  }
  store_part<kVectors>(cache + places[blockIdx.x] * (latent + rope) + begin, first, width, x);
  if (copy != nullptr) store_part<kVectors>(copy + blockIdx.x * copy_stride + begin, first, width, x);
}

}  // namespace

void latent_write(device::cuda::Stream& stream, const LatentWriteArgs& args) {
  const Matrix& x = args.kv_a;
  const int64_t rope = 2 * args.rope.half;
  const int64_t latent = x.columns - rope;
  FATHOM_CHECK(rope > 0 && latent > 0 && x.rows == args.batch.tokens && args.cache.width == x.columns,
               "kv_a [{}, {}] with {} rotated, {} tokens, a cache of width {}", x.rows, x.columns, rope,
               args.batch.tokens, args.cache.width);
  FATHOM_CHECK(args.copy.data == nullptr || (args.copy.rows == x.rows && args.copy.columns == x.columns),
               "a copy [{}, {}] of kv_a [{}, {}]", args.copy.rows, args.copy.columns, x.rows, x.columns);
  const int64_t parts = parts_of(latent) + parts_of(rope);
  FATHOM_CHECK(parts <= kMaxParts, "kv_a is {} wide: over {}", x.columns, kMaxParts * kPart);
  if (x.rows == 0) return;
  const bool vectors =
      latent % kPart == 0 && takes_parts(x) && takes_parts(args.rope) &&
      takes_parts(args.norm_weight, sizeof(float), latent, 0) &&
      takes_parts(args.cache.data, device::size_of(args.cache.dtype), x.columns, x.columns) &&
      (args.copy.data == nullptr || takes_parts(args.copy));
  const auto threads = static_cast<unsigned>((parts + 31) / 32 * 32);
  const device::DType copy_dtype = args.copy.data == nullptr ? device::DType::kF32 : args.copy.dtype;
  with_flag(vectors, [&](auto flag) {
    with_activation_type(x.dtype, "kv_a", [&](auto* x_null) {
      with_activation_type(copy_dtype, "the copy", [&](auto* copy_null) {
        with_cache_type(args.cache.dtype, [&](auto* cache_null) {
          using X = std::remove_pointer_t<decltype(x_null)>;
          using Y = std::remove_pointer_t<decltype(copy_null)>;
          using C = std::remove_pointer_t<decltype(cache_null)>;
          latent_write_kernel<decltype(flag)::value, X, C, Y>
              <<<static_cast<unsigned>(x.rows), threads, 0, stream.handle()>>>(
                  static_cast<const X*>(x.data), x.stride, latent, args.norm_weight, args.eps, args.rope,
                  args.batch.positions, args.batch.places, static_cast<C*>(args.cache.data),
                  static_cast<Y*>(args.copy.data), args.copy.stride);
        });
      });
    });
  });
  stream.launched("latent_write");
}

}  // namespace fathom::ops::cuda

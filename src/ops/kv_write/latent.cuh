// One token's entry of the latent cache, shared by the kernels that write it.
#pragma once

#include "ops/kv_write/cuda.h"
#include "ops/rope/rotate.cuh"
#include "ops/vector/cuda.cuh"

namespace fathom::ops::cuda {

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

// Token t, by threads of whole warps with one for each part: first the latent's, then the rope's. More of
// them do not change the sum. sum_of(value) is the sum over them, for each.
template <bool kVectors, class X, class C, class Y, class Sum>
__device__ void write_latent(const LatentView<X, C, Y>& view, int64_t t, int64_t position, int64_t thread,
                             const Sum& sum_of) {
  const int64_t rope = 2 * view.table.half;
  const int64_t latent_parts = parts_of(view.latent);
  const bool in_latent = thread < latent_parts;
  const int64_t first = (in_latent ? thread : thread - latent_parts) * kPart;
  const int64_t begin = in_latent ? 0 : view.latent;
  const int64_t width = in_latent ? view.latent : rope;

  Floats x = load_part<kVectors>(view.kv_a + t * view.stride + begin, first, width);
  const float sum = sum_of(in_latent ? add_squares(x, 0.0F) : 0.0F);
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

// CHECKs the shapes.
inline void check_latent(const LatentWriteArgs& args) {
  const Matrix& x = args.kv_a;
  const int64_t rope = 2 * args.rope.half;
  FATHOM_CHECK(rope > 0 && x.columns > rope && x.rows == args.batch.tokens && args.cache.width == x.columns,
               "kv_a [{}, {}] with {} rotated, {} tokens, a cache of width {}", x.rows, x.columns, rope,
               args.batch.tokens, args.cache.width);
  FATHOM_CHECK(args.copy.data == nullptr || (args.copy.rows == x.rows && args.copy.columns == x.columns),
               "a copy [{}, {}] of kv_a [{}, {}]", args.copy.rows, args.copy.columns, x.rows, x.columns);
}

// The same of queries and entries that are made at once.
inline void check_together(const RopeArgs& q, const LatentWriteArgs& latent) {
  check_rope(q);
  check_latent(latent);
  FATHOM_CHECK(q.x.rows == latent.kv_a.rows && q.positions == latent.batch.positions &&
                   q.table.half == latent.rope.half && q.table.cos == latent.rope.cos,
               "q [{}, {}] and kv_a [{}, {}] of different batches or tables", q.x.rows, q.x.columns,
               latent.kv_a.rows, latent.kv_a.columns);
}

inline int64_t latent_parts(const LatentWriteArgs& args) {
  const int64_t rope = 2 * args.rope.half;
  return parts_of(args.kv_a.columns - rope) + parts_of(rope);
}

inline bool latent_takes_parts(const LatentWriteArgs& args) {
  const int64_t width = args.kv_a.columns;
  const int64_t latent = width - 2 * args.rope.half;
  return latent % kPart == 0 && takes_parts(args.kv_a) && takes_parts(args.rope) &&
         takes_parts(args.norm_weight, sizeof(float), latent, 0) &&
         takes_parts(args.cache.data, device::size_of(args.cache.dtype), width, width) &&
         (args.copy.data == nullptr || takes_parts(args.copy));
}

}  // namespace fathom::ops::cuda

#include "device/cuda/launch_kernel.h"
#include "ops/kv_write/cuda.h"
#include "ops/vector/cuda.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kThreads = 256;

// Sizes of a head: the entry holds `heads` keys of nope + rope, then `heads` values.
struct Heads {
  int64_t count, nope, rope, value;
};

// Where element i of an entry comes from: a row of k_nope_v, or (at) of k_rope.
struct Source {
  bool rope;
  int64_t at;
};
__device__ Source source_of(const Heads& heads, int64_t i) {
  const int64_t key = heads.nope + heads.rope;
  const int64_t from_head = heads.nope + heads.value;
  if (i >= heads.count * key) {
    i -= heads.count * key;
    return {false, i / heads.value * from_head + heads.nope + i % heads.value};
  }
  const int64_t d = i % key;
  if (d >= heads.nope) return {true, d - heads.nope};
  return {false, i / key * from_head + d};
}

// CTAs (t, b) of token t. Vectors: nope, rope and value are multiples of eight, a thread a part of eight;
// otherwise a thread an element.
template <bool kVectors, class N, class R, class C>
__global__ void plain_write_kernel(const N* k_nope_v, int64_t nope_stride, const R* k_rope,
                                   int64_t rope_stride, Heads heads, int64_t width, const int32_t* positions,
                                   const int64_t* places, C* cache) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();

  if (positions[blockIdx.x] < 0) return;
  const int64_t i =
      (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * (kVectors ? int64_t{kPart} : 1);
  if (i >= width) return;
  const Source source = source_of(heads, i);
  const N* nope_row = k_nope_v + blockIdx.x * nope_stride;
  const R* rope_row = k_rope + blockIdx.x * rope_stride;
  C* to = cache + places[blockIdx.x] * width + i;
  if constexpr (kVectors) {
    store_part(to, source.rope ? load_part(rope_row + source.at) : load_part(nope_row + source.at));
  } else {
    *to = from_float<C>(source.rope ? to_float(rope_row[source.at]) : to_float(nope_row[source.at]));
  }
}

}  // namespace

void plain_write(device::cuda::Stream& stream, const PlainWriteArgs& args) {
  const Matrix& kv = args.k_nope_v;
  const Matrix& k_rope = args.k_rope;
  const Heads heads{args.heads, args.nope, k_rope.columns, args.value};
  const int64_t width = heads.count * (heads.nope + heads.rope + heads.value);
  FATHOM_CHECK(heads.count > 0 && heads.nope > 0 && heads.rope > 0 && heads.value > 0 &&
                   kv.columns == heads.count * (heads.nope + heads.value) && args.cache.width == width,
               "k_nope_v [{}, {}] of {} heads of {} + {}, {} rotated, a cache of width {}", kv.rows,
               kv.columns, heads.count, heads.nope, heads.value, heads.rope, args.cache.width);
  FATHOM_CHECK(kv.rows == args.batch.tokens && k_rope.rows == kv.rows, "{} and {} rows for {} tokens",
               kv.rows, k_rope.rows, args.batch.tokens);
  if (kv.rows == 0) return;
  const bool vectors = heads.nope % kPart == 0 && heads.rope % kPart == 0 && heads.value % kPart == 0 &&
                       takes_parts(kv) && takes_parts(k_rope) &&
                       takes_parts(args.cache.data, device::size_of(args.cache.dtype), width, width);
  const int64_t pieces = vectors ? width / kPart : width;
  const dim3 grid(static_cast<unsigned>(kv.rows), static_cast<unsigned>((pieces + kThreads - 1) / kThreads));
  with_flag(vectors, [&](auto flag) {
    with_activation_type(kv.dtype, "k_nope_v", [&](auto* kv_null) {
      with_activation_type(k_rope.dtype, "k_rope", [&](auto* rope_null) {
        with_cache_type(args.cache.dtype, [&](auto* cache_null) {
          using N = std::remove_pointer_t<decltype(kv_null)>;
          using R = std::remove_pointer_t<decltype(rope_null)>;
          using C = std::remove_pointer_t<decltype(cache_null)>;
          device::cuda::launch_early(
              stream, plain_write_kernel<decltype(flag)::value, N, R, C>, grid, kThreads, 0,
              static_cast<const N*>(kv.data), kv.stride, static_cast<const R*>(k_rope.data), k_rope.stride,
              heads, width, args.batch.positions, args.batch.places, static_cast<C*>(args.cache.data));
        });
      });
    });
  });
  stream.launched("plain_write");
}

}  // namespace fathom::ops::cuda

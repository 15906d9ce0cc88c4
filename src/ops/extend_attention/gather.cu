#include "base/check.h"
#include "base/math.h"
#include "ops/attention/values.cuh"
#include "ops/extend_attention/cuda.h"

namespace fathom::ops::cuda {
namespace {

constexpr int kWarps = 8;

struct Params {
  const void* cache;
  int64_t page_size;
  int width, latent;
  const int32_t* block_tables;
  int64_t table_stride;
  const ExtendRow* rows;
  void* latent_to;
  void* rope_to;
  int64_t latent_stride, rope_stride;
};

// A warp copies a place; blockIdx.y is the row.
template <class To, class From>
__global__ void __launch_bounds__(kWarps * 32) latent_gather_kernel(Params params) {
  const ExtendRow row = params.rows[blockIdx.y];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int32_t* table = params.block_tables + row.slot * params.table_stride;
  for (int64_t place = row.key_begin + static_cast<int>(blockIdx.x) * kWarps + warp; place < row.key_end;
       place += gridDim.x * kWarps) {
    const From* entry =
        static_cast<const From*>(params.cache) +
        (table[place / params.page_size] * params.page_size + place % params.page_size) * params.width;
    const int64_t key = row.key_row + (place - row.key_begin);
    for (int d = lane * 8; d < params.width; d += 256) {
      float values[8];
      load8(entry + d, values);
      store8(d < params.latent
                 ? static_cast<To*>(params.latent_to) + key * params.latent_stride + d
                 : static_cast<To*>(params.rope_to) + key * params.rope_stride + (d - params.latent),
             values);
    }
  }
}

}  // namespace

void latent_gather(device::cuda::Stream& stream, const LatentGatherArgs& args) {
  if (args.num_rows == 0 || args.keys == 0) return;
  const Matrix &latent = args.latent, &rope = args.rope;
  FATHOM_CHECK(args.latent_width % 8 == 0 && args.cache.width % 8 == 0 && latent.stride % 8 == 0 &&
                   rope.stride % 8 == 0,
               "latent {} of width {}, strides {} and {}", args.latent_width, args.cache.width, latent.stride,
               rope.stride);
  FATHOM_CHECK(latent.columns == args.latent_width && latent.columns + rope.columns == args.cache.width &&
                   latent.dtype == rope.dtype && latent.rows >= args.keys && rope.rows >= args.keys,
               "latent [{}, {}] and rope [{}, {}] for {} keys of width {}", latent.rows, latent.columns,
               rope.rows, rope.columns, args.keys, args.cache.width);
  Params params;
  params.cache = args.cache.data;
  params.page_size = args.cache.page_size;
  params.width = static_cast<int>(args.cache.width);
  params.latent = static_cast<int>(args.latent_width);
  params.block_tables = args.batch.block_tables;
  params.table_stride = args.batch.table_stride;
  params.rows = args.rows;
  params.latent_to = latent.data;
  params.rope_to = rope.data;
  params.latent_stride = latent.stride;
  params.rope_stride = rope.stride;
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(ceil_div(args.keys, args.num_rows), kWarps)),
                  static_cast<unsigned>(args.num_rows));
  with_cache_type(args.cache.dtype, [&]<class T>(const T*) {
    if (latent.dtype == device::DType::kBF16)
      latent_gather_kernel<__nv_bfloat16, T><<<grid, kWarps * 32, 0, stream.handle()>>>(params);
    else
      latent_gather_kernel<float, T><<<grid, kWarps * 32, 0, stream.handle()>>>(params);
  });
  stream.launched("latent_gather");
}

}  // namespace fathom::ops::cuda

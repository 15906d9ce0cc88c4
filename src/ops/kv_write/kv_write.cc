#include "ops/kv_write/kv_write.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "ops/implementation.h"
#include "ops/kv_write/row.h"

namespace fathom::ops {
namespace {

constexpr int64_t kGrain = 32768;  // values of a piece of work: about 5 us

void store(const KvCache& cache, int64_t place, int64_t first, const float* values, int64_t count) {
  void* entry = cache.entry(place / cache.page_size, place % cache.page_size);
  if (cache.dtype == device::DType::kBF16)
    narrow_row_avx2(values, static_cast<uint16_t*>(entry) + first, count);
  else
    std::memcpy(static_cast<float*>(entry) + first, values, static_cast<size_t>(count) * sizeof(float));
}

void latent_write_avx2(device::Launch& launch, const LatentWriteArgs& args) {
  const int64_t width = args.kv_a.dim(1), half = args.rope->half;
  const auto body = [&](int64_t begin, int64_t end, int worker) {
    for (int64_t t = begin; t < end; ++t) {
      float* entry =
          args.copy != nullptr
              ? args.copy->row<float>(t)
              : reinterpret_cast<float*>(launch.scratch(worker, static_cast<size_t>(width) * sizeof(float)));
      const int64_t row = args.positions[t] * half;
      latent_row_avx2(args.kv_a.row<float>(t), width - 2 * half, half, args.norm_weight, args.eps,
                      args.rope->cos.data() + row, args.rope->sin.data() + row, entry);
      store(args.cache, args.places[t], 0, entry, width);
    }
  };
  launch.pool().parallel_for(args.kv_a.dim(0), std::max<int64_t>(1, kGrain / width), std::ref(body));
}

void plain_write_avx2(device::Launch& launch, const PlainWriteArgs& args) {
  const int64_t heads = args.k_nope_v.dim(1), nope = args.nope, rope = args.k_rope.dim(1);
  const int64_t key = nope + rope, value = args.k_nope_v.dim(2) - nope;
  const auto body = [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        const float* x = args.k_nope_v.row<float>(t) + h * args.k_nope_v.stride[1];
        store(args.cache, args.places[t], h * key, x, nope);
        store(args.cache, args.places[t], h * key + nope, args.k_rope.row<float>(t), rope);
        store(args.cache, args.places[t], heads * key + h * value, x + nope, value);
      }
    }
  };
  launch.pool().parallel_for(args.k_nope_v.dim(0), std::max<int64_t>(1, kGrain / (heads * (key + value))),
                             std::ref(body));
}

constexpr Implementation<LatentWriteFunction> kLatentWrite[] = {
    {"avx2", device::Isa::kAvx2, latent_write_avx2},
    {"reference", device::Isa::kReference, latent_write_reference},
};
constexpr Implementation<PlainWriteFunction> kPlainWrite[] = {
    {"avx2", device::Isa::kAvx2, plain_write_avx2},
    {"reference", device::Isa::kReference, plain_write_reference},
};

}  // namespace

LatentWriteFunction choose_latent_write(const device::Target& target) {
  return choose<LatentWriteFunction>(kLatentWrite, target).run;
}

PlainWriteFunction choose_plain_write(const device::Target& target) {
  return choose<PlainWriteFunction>(kPlainWrite, target).run;
}

}  // namespace fathom::ops

#include <cmath>
#include <vector>

#include "ops/kv_write/kv_write.h"

namespace fathom::ops {
namespace {

void store(const KvCache& cache, int64_t place, int64_t first, const float* values, int64_t count) {
  void* entry = cache.entry(place / cache.page_size, place % cache.page_size);
  for (int64_t i = 0; i < count; ++i) {
    if (cache.dtype == device::DType::kBF16)
      static_cast<device::bf16*>(entry)[first + i] = device::f32_to_bf16(values[i]);
    else
      static_cast<float*>(entry)[first + i] = values[i];
  }
}

}  // namespace

void latent_write_reference(device::Launch&, const LatentWriteArgs& args) {
  const int64_t half = args.rope->half;
  const int64_t width = args.kv_a.dim(1);
  const int64_t latent = width - 2 * half;
  std::vector<float> entry(static_cast<size_t>(width));
  for (int64_t t = 0; t < args.kv_a.dim(0); ++t) {
    const float* x = args.kv_a.row<float>(t);
    double sum = 0;
    for (int64_t i = 0; i < latent; ++i) sum += static_cast<double>(x[i]) * x[i];
    const double scale = 1.0 / std::sqrt(sum / static_cast<double>(latent) + args.eps);
    for (int64_t i = 0; i < latent; ++i) {
      entry[static_cast<size_t>(i)] = static_cast<float>(x[i] * scale * args.norm_weight[i]);
    }
    for (int64_t i = 0; i < half; ++i) {
      const double cos = args.rope->cos[static_cast<size_t>(args.positions[t] * half + i)];
      const double sin = args.rope->sin[static_cast<size_t>(args.positions[t] * half + i)];
      const double a = x[latent + 2 * i], b = x[latent + 2 * i + 1];
      entry[static_cast<size_t>(latent + 2 * i)] = static_cast<float>(a * cos - b * sin);
      entry[static_cast<size_t>(latent + 2 * i + 1)] = static_cast<float>(a * sin + b * cos);
    }
    store(args.cache, args.places[t], 0, entry.data(), width);
    if (args.copy != nullptr) std::copy(entry.begin(), entry.end(), args.copy->row<float>(t));
  }
}

void plain_write_reference(device::Launch&, const PlainWriteArgs& args) {
  const int64_t heads = args.k_nope_v.dim(1);
  const int64_t nope = args.nope;
  const int64_t rope = args.k_rope.dim(1);
  const int64_t value = args.k_nope_v.dim(2) - nope;
  for (int64_t t = 0; t < args.k_nope_v.dim(0); ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      const float* x = args.k_nope_v.row<float>(t) + h * args.k_nope_v.stride[1];
      const int64_t key = h * (nope + rope);
      store(args.cache, args.places[t], key, x, nope);
      store(args.cache, args.places[t], key + nope, args.k_rope.row<float>(t), rope);
      store(args.cache, args.places[t], heads * (nope + rope) + h * value, x + nope, value);
    }
  }
}

}  // namespace fathom::ops

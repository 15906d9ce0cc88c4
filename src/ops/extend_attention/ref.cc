#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/extend_attention/extend_attention.h"

namespace fathom::ops {

// Projects a sequence's places all at once and attends to them with a plain softmax.
void extend_attention_reference(device::Launch& launch, const ExtendAttentionArgs& args) {
  const int64_t heads = args.q.dim(1);
  const int64_t latent = args.latent, nope = args.nope, value = args.value;
  const int64_t rope = args.q.dim(2) - nope;
  const int64_t stride = heads * (nope + value);
  for (const AttentionRow& row : args.rows) {
    const int64_t places = row.start + row.count;
    std::vector<float> latents(static_cast<size_t>(places * latent));
    std::vector<float> ropes(static_cast<size_t>(places * rope));
    for (int64_t p = 0; p < places; ++p) {
      const void* entry =
          args.cache.entry(row.block_table[p / args.cache.page_size], p % args.cache.page_size);
      for (int64_t d = 0; d < latent; ++d) {
        latents[static_cast<size_t>(p * latent + d)] = device::load_as_f32(entry, args.cache.dtype, d);
      }
      for (int64_t d = 0; d < rope; ++d) {
        ropes[static_cast<size_t>(p * rope + d)] = device::load_as_f32(entry, args.cache.dtype, latent + d);
      }
    }
    std::vector<float> projected(static_cast<size_t>(places * stride));
    LinearArgs linear;
    linear.x = device::Tensor(latents.data(), device::DType::kF32, {places, latent});
    linear.y = device::Tensor(projected.data(), device::DType::kF32, {places, stride});
    linear.weight = args.kv_b;
    args.linear(launch, linear);

    for (int32_t i = 0; i < row.count; ++i) {
      const int64_t t = row.first + i;
      const int64_t length = row.start + i + 1;
      for (int64_t h = 0; h < heads; ++h) {
        const float* q = args.q.row<float>(t) + h * args.q.stride[1];
        std::vector<double> scores(static_cast<size_t>(length));
        for (int64_t p = 0; p < length; ++p) {
          const float* k = projected.data() + p * stride + h * (nope + value);
          double sum = 0;
          for (int64_t d = 0; d < nope; ++d) sum += static_cast<double>(q[d]) * k[d];
          for (int64_t d = 0; d < rope; ++d) {
            sum += static_cast<double>(q[nope + d]) * ropes[static_cast<size_t>(p * rope + d)];
          }
          scores[static_cast<size_t>(p)] = sum * args.scale;
        }
        const double top = *std::max_element(scores.begin(), scores.end());
        double total = 0;
        for (double& score : scores) total += score = std::exp(score - top);
        float* out = args.out.row<float>(t) + h * args.out.stride[1];
        for (int64_t d = 0; d < value; ++d) {
          double sum = 0;
          for (int64_t p = 0; p < length; ++p) {
            sum += scores[static_cast<size_t>(p)] *
                   projected[static_cast<size_t>(p * stride + h * (nope + value) + nope + d)];
          }
          out[d] = static_cast<float>(sum / total);
        }
      }
    }
  }
}

}  // namespace fathom::ops

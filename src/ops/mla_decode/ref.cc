#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/mla_decode/mla_decode.h"

namespace fathom::ops {

void mla_decode_reference(device::Launch&, const MlaDecodeArgs& args) {
  const int64_t heads = args.q.dim(1);
  const int64_t width = args.q.dim(2);
  for (const AttentionRow& row : args.rows) {
    for (int32_t i = 0; i < row.count; ++i) {
      const int64_t t = row.first + i;
      const int64_t length = row.start + i + 1;
      std::vector<double> entries(static_cast<size_t>(length * width));
      for (int64_t p = 0; p < length; ++p) {
        const void* entry = entry_of(args.cache, row, p);
        for (int64_t d = 0; d < width; ++d) {
          entries[static_cast<size_t>(p * width + d)] = device::load_as_f32(entry, args.cache.dtype, d);
        }
      }
      for (int64_t h = 0; h < heads; ++h) {
        const float* q = args.q.row<float>(t) + h * args.q.stride[1];
        std::vector<double> scores(static_cast<size_t>(length));
        for (int64_t p = 0; p < length; ++p) {
          double sum = 0;
          for (int64_t d = 0; d < width; ++d) sum += q[d] * entries[static_cast<size_t>(p * width + d)];
          scores[static_cast<size_t>(p)] = sum * args.scale;
        }
        const double top = *std::max_element(scores.begin(), scores.end());
        double total = 0;
        for (double& score : scores) total += score = std::exp(score - top);
        float* out = args.out.row<float>(t) + h * args.out.stride[1];
        for (int64_t d = 0; d < args.latent; ++d) {
          double sum = 0;
          for (int64_t p = 0; p < length; ++p) {
            sum += scores[static_cast<size_t>(p)] * entries[static_cast<size_t>(p * width + d)];
          }
          out[d] = static_cast<float>(sum / total);
        }
      }
    }
  }
}

}  // namespace fathom::ops

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/mha_attention/mha_attention.h"

namespace fathom::ops {

void mha_attention_reference(device::Launch&, const MhaAttentionArgs& args) {
  const int64_t heads = args.q.dim(1);
  const int64_t key = args.q.dim(2);
  const KvCache& cache = args.cache;
  for (const AttentionRow& row : args.rows) {
    for (int32_t i = 0; i < row.count; ++i) {
      const int64_t t = row.first + i;
      const int64_t length = row.start + i + 1;
      for (int64_t h = 0; h < heads; ++h) {
        const float* q = args.q.row<float>(t) + h * args.q.stride[1];
        const auto entry = [&](int64_t p) { return entry_of(cache, row, p); };
        std::vector<double> scores(static_cast<size_t>(length));
        for (int64_t p = 0; p < length; ++p) {
          double sum = 0;
          for (int64_t d = 0; d < key; ++d) {
            sum += static_cast<double>(q[d]) * device::load_as_f32(entry(p), cache.dtype, h * key + d);
          }
          scores[static_cast<size_t>(p)] = sum * args.scale;
        }
        const double top = *std::max_element(scores.begin(), scores.end());
        double total = 0;
        for (double& score : scores) total += score = std::exp(score - top);
        float* out = args.out.row<float>(t) + h * args.out.stride[1];
        for (int64_t d = 0; d < args.value; ++d) {
          const int64_t column = heads * key + h * args.value + d;
          double sum = 0;
          for (int64_t p = 0; p < length; ++p) {
            sum += scores[static_cast<size_t>(p)] * device::load_as_f32(entry(p), cache.dtype, column);
          }
          out[d] = static_cast<float>(sum / total);
        }
      }
    }
  }
}

}  // namespace fathom::ops

#include "ops/embedding/embedding.h"

namespace fathom::ops {

void embedding_reference(device::Launch&, const EmbeddingArgs& args) {
  const int64_t width = args.table.dim(1);
  for (int64_t t = 0; t < args.y.dim(0); ++t) {
    float* y = args.y.row<float>(t);
    const int64_t first = args.ids[t] * args.table.stride[0];
    for (int64_t i = 0; i < width; ++i) {
      y[i] = device::load_as_f32(args.table.data, args.table.dtype, first + i);
    }
  }
}

}  // namespace fathom::ops

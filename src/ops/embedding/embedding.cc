#include "ops/embedding/embedding.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "ops/embedding/row.h"
#include "ops/implementation.h"

namespace fathom::ops {
namespace {

constexpr int64_t kGrain = 32768;  // values of a piece of work: about 5 us

void embedding_avx2(device::Launch& launch, const EmbeddingArgs& args) {
  const int64_t width = args.table.dim(1);
  const device::DType dtype = args.table.dtype;
  FATHOM_CHECK(dtype == device::DType::kF32 || dtype == device::DType::kBF16 || dtype == device::DType::kF16,
               "embedding table of {}", to_string(dtype));
  const auto body = [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      FATHOM_CHECK(0 <= args.ids[t] && args.ids[t] < args.table.dim(0), "token {} of {}", args.ids[t],
                   args.table.dim(0));
      const auto* row = static_cast<const uint8_t*>(args.table.data) +
                        args.ids[t] * args.table.stride[0] * device::size_of(dtype);
      float* y = args.y.row<float>(t);
      if (dtype == device::DType::kBF16)
        widen_bf16_row_avx2(reinterpret_cast<const uint16_t*>(row), y, width);
      else if (dtype == device::DType::kF16)
        widen_f16_row_avx2(reinterpret_cast<const uint16_t*>(row), y, width);
      else
        std::memcpy(y, row, static_cast<size_t>(width) * sizeof(float));
    }
  };
  launch.pool().parallel_for(args.y.dim(0), std::max<int64_t>(1, kGrain / width), std::ref(body));
}

constexpr Implementation<EmbeddingFunction> kEmbedding[] = {
    {"avx2", device::Isa::kAvx2, embedding_avx2},
    {"reference", device::Isa::kReference, embedding_reference},
};

}  // namespace

EmbeddingFunction choose_embedding(const device::Target& target) {
  return choose<EmbeddingFunction>(kEmbedding, target).run;
}

}  // namespace fathom::ops

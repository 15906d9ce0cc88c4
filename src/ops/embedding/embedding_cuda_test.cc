#include "ops/cuda_testing.h"
#include "ops/embedding/cuda.h"

namespace fathom::ops::cuda {
namespace {

using device::DType;
using device::cuda::testing::DeviceArray;

// A table's values are widened to float32 exactly.
TEST(EmbeddingCuda, TakesTheTablesRows) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(7);
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const int64_t width : {5, 64, 7168}) {
      constexpr int64_t kVocab = 31;
      const auto table = rounded(type, random_floats(kVocab * width, random));
      const DeviceMatrix device_table(type, kVocab, width, table);
      constexpr int64_t kFirst = 100;  // the part of a vocabulary that a rank has
      const std::vector<int32_t> ids = {100, 130, 107, -1, 107, 99, 112, 131, 0};
      const auto tokens = static_cast<int64_t>(ids.size());
      const DeviceArray<int32_t> device_ids(ids);
      const DeviceArray<float> y(tokens * width);
      embedding(stream, {.table = device_table.view().data,
                         .table_dtype = type,
                         .first = kFirst,
                         .rows = kVocab,
                         .ids = device_ids.data(),
                         .tokens = tokens,
                         .width = width,
                         .y = y.data()});
      std::vector<float> wanted;
      for (const int32_t id : ids) {
        for (int64_t i = 0; i < width; ++i) {
          const bool known = id >= kFirst && id < kFirst + kVocab;
          wanted.push_back(known ? table[static_cast<size_t>((id - kFirst) * width + i)] : 0.0F);
        }
      }
      expect_same(y.get(), wanted, width, fmt::format("width {}", width));
    }
  }
}

}  // namespace
}  // namespace fathom::ops::cuda

#include "ops/embedding/embedding.h"

#include <gtest/gtest.h>

#include "ops/attention/testing.h"

namespace fathom::ops {
namespace {

TEST(Embedding, RowsAreExact) {
  std::mt19937 random(9);
  for (const device::DType dtype : {device::DType::kF32, device::DType::kBF16, device::DType::kF16}) {
    for (const int64_t width : {1, 8, 37, 256}) {
      const int64_t vocabulary = 50, tokens = 200;
      std::vector<std::byte> table(static_cast<size_t>(vocabulary * width * device::size_of(dtype)));
      for (std::byte& byte : table) byte = static_cast<std::byte>(random());
      std::vector<int32_t> ids;
      for (int64_t t = 0; t < tokens; ++t) ids.push_back(static_cast<int32_t>(random() % vocabulary));
      for (const device::Isa isa : levels_here()) {
        device::Target target;
        target.isa = isa;
        std::vector<float> y(static_cast<size_t>(tokens * width), -1.0F);
        EmbeddingArgs args;
        args.table = device::Tensor(table.data(), dtype, {vocabulary, width});
        args.ids = ids.data();
        args.y = device::Tensor(y.data(), device::DType::kF32, {tokens, width});
        ThreadPool pool(2);
        device::Launch launch(pool);
        choose_embedding(target)(launch, args);
        for (int64_t t = 0; t < tokens; ++t) {
          for (int64_t d = 0; d < width; ++d) {
            const float want =
                device::load_as_f32(table.data(), dtype, ids[static_cast<size_t>(t)] * width + d);
            const float got = y[static_cast<size_t>(t * width + d)];
            ASSERT_TRUE(got == want || (std::isnan(got) && std::isnan(want)))
                << to_string(isa) << " " << to_string(dtype) << " " << got << " for " << want;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace fathom::ops

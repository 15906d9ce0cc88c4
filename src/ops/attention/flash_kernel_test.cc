#include <gtest/gtest.h>

#include "ops/attention/testing.h"

namespace fathom::ops {
namespace {

TEST(FlashKernels, Exp2IsAccurateAndExactWhereItMatters) {
  for (const auto& [name, kernels] : flash_kernels_here()) {
    std::vector<float> x;
    for (float value = -126.0F; value < 0.0F; value += 0.00137F) x.push_back(value);
    for (float value = -1e-8F; value > -1.0F; value *= 1.01F) x.push_back(value);
    while (x.size() % 16 != 0) x.push_back(-1.0F);
    std::vector<float> y(x.size());
    kernels->exp2(x.data(), y.data(), static_cast<int64_t>(x.size()));
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double want = std::exp2(static_cast<double>(x[i]));
      worst = std::max(worst, std::fabs(y[i] - want) / want);
    }
    EXPECT_LT(worst, 1.5e-7) << name;

    const float inf = std::numeric_limits<float>::infinity();
    std::vector<float> edge(16, 0.0F), result(16);
    edge[0] = -inf, edge[1] = kPoison, edge[2] = -1e30F, edge[3] = -127.5F, edge[4] = -1.0F, edge[5] = 1.0F;
    kernels->exp2(edge.data(), result.data(), 16);
    EXPECT_EQ(result[0], 0.0F) << name;
    EXPECT_TRUE(std::isnan(result[1])) << name;
    EXPECT_EQ(result[2], 0.0F) << name;
    EXPECT_EQ(result[3], 0.0F) << name;
    EXPECT_EQ(result[4], 0.5F) << name;
    EXPECT_EQ(result[5], 2.0F) << name;
    EXPECT_EQ(result[6], 1.0F) << name;
  }
}

TEST(FlashKernels, TransposesAnyShape) {
  for (const auto& [name, kernels] : flash_kernels_here()) {
    for (const int64_t rows : {1, 3, 8, 13, 16}) {
      for (const int64_t width : {1, 7, 8, 20, 64}) {
        std::mt19937 random(static_cast<uint32_t>(rows * 100 + width));
        const auto src = random_values(static_cast<size_t>(rows * (width + 3)), random);
        std::vector<float> dst(static_cast<size_t>(width * (rows + 2)), -1.0F);
        kernels->transpose(src.data(), width + 3, rows, width, 2.0F, dst.data(), rows + 2);
        for (int64_t j = 0; j < width; ++j) {
          for (int64_t i = 0; i < rows + 2; ++i) {
            const float want = i < rows ? 2.0F * src[static_cast<size_t>(i * (width + 3) + j)] : -1.0F;
            ASSERT_EQ(dst[static_cast<size_t>(j * (rows + 2) + i)], want)
                << name << " " << rows << " " << width;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace fathom::ops

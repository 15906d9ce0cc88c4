#include "ops/swiglu/swiglu.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "ops/linear/testing.h"

namespace fathom::ops {
namespace {

using device::DType;
using device::Tensor;
using testing::available_targets;

TEST(Swiglu, AgreesWithTheOracleForEverySizeOfGate) {
  ThreadPool pool(2);
  device::Launch launch(pool);
  for (const int64_t n : {1, 7, 8, 15, 16, 17, 100, 1408}) {
    constexpr int64_t kRows = 20;
    std::vector<float> in = testing::random_values(1, kRows * (2 * n + 3), 1.0F);
    for (int64_t r = 0; r < kRows; ++r) {
      const float spread = std::ldexp(1.0F, static_cast<int>(r) - 10);  // from 2^-10 to 2^9
      for (int64_t i = 0; i < n; ++i) in[static_cast<size_t>(r * (2 * n + 3) + i)] *= spread;
    }
    Tensor gate_up(in.data(), DType::kF32, {kRows, 2 * n});
    gate_up.stride[0] = 2 * n + 3;
    std::vector<float> expected(static_cast<size_t>(kRows * n));
    swiglu_reference(launch, {gate_up, Tensor(expected.data(), DType::kF32, {kRows, n})});
    for (const auto& target : available_targets()) {
      std::vector<float> y(static_cast<size_t>(kRows * (n + 1)), testing::kPoison);
      Tensor out(y.data(), DType::kF32, {kRows, n});
      out.stride[0] = n + 1;
      choose_swiglu(target)(launch, {gate_up, out});
      for (int64_t r = 0; r < kRows; ++r) {
        for (int64_t i = 0; i < n; ++i) {
          const double want = expected[static_cast<size_t>(r * n + i)];
          // exp within 2 units, then three roundings; 1e-30 for results that leave float32's range.
          ASSERT_NEAR(y[static_cast<size_t>(r * (n + 1) + i)], want, 6e-7 * std::fabs(want) + 1e-30)
              << to_string(target.isa) << " n " << n << " row " << r << " i " << i;
        }
        ASSERT_TRUE(std::isnan(y[static_cast<size_t>(r * (n + 1) + n)]));
      }
    }
  }
}

TEST(Swiglu, IsNotFiniteWhereTheOracleIsNot) {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  // gates, then ups
  std::vector<float> in = {nan, inf, -inf, 1e30F, -1e30F, 88.7F, -88.9F, 0.0F, 1, 1, 1, 2, 2, 1, 1, inf};
  ThreadPool pool(1);
  device::Launch launch(pool);
  const Tensor gate_up(in.data(), DType::kF32, {1, 16});
  std::vector<float> expected(8);
  swiglu_reference(launch, {gate_up, Tensor(expected.data(), DType::kF32, {1, 8})});
  for (const auto& target : available_targets()) {
    std::vector<float> y(8);
    choose_swiglu(target)(launch, {gate_up, Tensor(y.data(), DType::kF32, {1, 8})});
    for (size_t i = 0; i < y.size(); ++i) {
      EXPECT_EQ(std::isnan(y[i]), std::isnan(expected[i])) << i;
      EXPECT_EQ(std::isinf(y[i]), std::isinf(expected[i])) << i;
    }
  }
}

}  // namespace
}  // namespace fathom::ops

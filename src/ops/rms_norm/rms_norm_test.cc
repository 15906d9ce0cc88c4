#include "ops/rms_norm/rms_norm.h"

#include <gtest/gtest.h>

#include "ops/attention/testing.h"

namespace fathom::ops {
namespace {

// Squares are added in float32 along at least 32 chains when there are more than a few hundred: errors of the
// mean of a random walk over width / 32 steps, halved by the root; then three roundings.
constexpr float kRelative = 1e-6F;

struct Result {
  std::vector<float> x, y;
};

Result run(RmsNormFunction function, int threads, int64_t tokens, int64_t width, const std::vector<float>& x,
           const std::vector<float>* delta, const std::vector<float>& weight) {
  // Rows wider apart than their width; what lies between must stay as it is.
  const int64_t stride = width + 3;
  Result result{x, std::vector<float>(static_cast<size_t>(tokens * stride), kPoison)};
  device::Tensor deltas;
  RmsNormArgs args;
  args.x = device::Tensor(result.x.data(), device::DType::kF32, {tokens, width});
  args.y = device::Tensor(result.y.data(), device::DType::kF32, {tokens, width});
  args.x.stride[0] = args.y.stride[0] = stride;
  if (delta != nullptr) {
    deltas = device::Tensor(const_cast<float*>(delta->data()), device::DType::kF32, {tokens, width});
    deltas.stride[0] = stride;
    args.delta = &deltas;
  }
  args.weight = weight.data();
  ThreadPool pool(threads);
  device::Launch launch(pool);
  function(launch, args);
  return result;
}

TEST(RmsNorm, EveryLevelAgreesWithTheReference) {
  std::mt19937 random(5);
  for (const int64_t width : {1, 7, 8, 33, 100, 512, 2048, 7168}) {
    for (const int64_t tokens : {1, 3, 40}) {
      const auto size = static_cast<size_t>(tokens * (width + 3));
      const auto x = random_values(size, random, 3.0F), delta = random_values(size, random);
      const auto weight = random_values(static_cast<size_t>(width), random);
      for (const std::vector<float>* added : {static_cast<const std::vector<float>*>(nullptr), &delta}) {
        const Result want = run(rms_norm_reference, 1, tokens, width, x, added, weight);
        for (const device::Isa isa : levels_here()) {
          device::Target target;
          target.isa = isa;
          const Result got = run(choose_rms_norm(target), 3, tokens, width, x, added, weight);
          expect_same_bits(got.x.data(), want.x.data(), size, "x");
          for (size_t i = 0; i < size; ++i) {
            ASSERT_EQ(std::isnan(got.y[i]), std::isnan(want.y[i])) << i;
            if (std::isnan(want.y[i])) continue;
            ASSERT_NEAR(got.y[i], want.y[i], std::fabs(want.y[i]) * kRelative)
                << to_string(isa) << " width " << width << " at " << i;
          }
          for (int64_t t = 0; t < tokens; t += 7) {
            const std::vector<float> row(x.begin() + t * (width + 3), x.begin() + (t + 1) * (width + 3));
            const std::vector<float> row_delta(delta.begin() + t * (width + 3),
                                               delta.begin() + (t + 1) * (width + 3));
            const Result alone = run(choose_rms_norm(target), 1, 1, width, row,
                                     added == nullptr ? nullptr : &row_delta, weight);
            expect_same_bits(alone.y.data(), got.y.data() + t * (width + 3), static_cast<size_t>(width),
                             "alone");
          }
        }
      }
    }
  }
}

TEST(RmsNorm, ANonFiniteRowHarmsNoOther) {
  std::vector<float> x(2 * 11, 1.0F);
  x[2] = std::numeric_limits<float>::infinity();
  const std::vector<float> weight(8, 1.0F);
  for (const device::Isa isa : levels_here()) {
    device::Target target;
    target.isa = isa;
    const Result got = run(choose_rms_norm(target), 1, 2, 8, x, nullptr, weight);
    EXPECT_TRUE(std::isnan(got.y[2]));
    EXPECT_NEAR(got.y[11], 1.0F, 1e-5F);
  }
}

}  // namespace
}  // namespace fathom::ops

#include "ops/cuda_testing.h"
#include "ops/swiglu/cuda.h"
#include "ops/swiglu/swiglu.h"

namespace fathom::ops::cuda {
namespace {

using device::DType;
using device::cuda::testing::DeviceArray;

// expf to 2 units, and three roundings.
constexpr float kRelative = 6 * 0x1p-24F;

TEST(SwigluCuda, AgreesWithTheReference) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(1);
  struct Shape {
    int64_t rows, width;
  };
  for (const auto& [rows, width] : {Shape{1, 18432}, {6, 2048}, {1, 8}, {33, 1408}, {700, 2048}, {3, 48}}) {
    for (const DType x_type : {DType::kF32, DType::kBF16}) {
      for (const DType y_type : {DType::kF32, DType::kBF16}) {
        for (const int64_t gap : {0, 3}) {
          auto halves = rounded(x_type, random_floats(rows * 2 * width, random, 4.0F));
          halves[0] = -200.0F;
          if (width > 8) halves[9] = 300.0F;
          halves = rounded(x_type, halves);
          std::vector<float> turns(halves.size()), want(static_cast<size_t>(rows * width));
          for (int64_t r = 0; r < rows; ++r) {
            for (int64_t i = 0; i < width; ++i) {
              const float* from = halves.data() + r * 2 * width + i;
              float* to = turns.data() + r * 2 * width + i / 8 * 16 + i % 8;
              to[0] = from[0];
              to[8] = from[width];
            }
          }
          ops::SwigluArgs ref;
          ref.gate_up = device::Tensor(halves.data(), DType::kF32, {rows, 2 * width});
          ref.y = device::Tensor(want.data(), DType::kF32, {rows, width});
          ThreadPool pool(1);
          device::Launch launch(pool);
          swiglu_reference(launch, ref);

          const DeviceMatrix x(x_type, rows, 2 * width, turns, gap);
          for (const int32_t valid : {-1, 0, 1, static_cast<int32_t>(rows), static_cast<int32_t>(rows) + 5}) {
            const DeviceMatrix y(y_type, rows, width, gap);
            const DeviceArray<int32_t> count(std::vector<int32_t>{valid});
            swiglu(stream, {x.view(), y.view(), valid >= 0 ? count.data() : nullptr});
            auto expected = want;
            if (valid >= 0 && valid < rows) {
              std::fill(expected.begin() + valid * width, expected.end(),
                        std::numeric_limits<float>::quiet_NaN());
            }
            expect_near(y.get(), expected, kRelative + half_unit(y_type), 1e-37F, width,
                        fmt::format("{}x{} valid {}", rows, width, valid));
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace fathom::ops::cuda

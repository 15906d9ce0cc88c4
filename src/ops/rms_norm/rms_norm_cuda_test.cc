#include "ops/cuda_testing.h"
#include "ops/rms_norm/cuda.h"
#include "ops/rms_norm/rms_norm.h"

namespace fathom::ops::cuda {
namespace {

using device::DType;
using device::cuda::testing::DeviceArray;

// The mean of squares is a float32 sum of at most 64 terms a thread and 37 steps of a tree, all positive:
// relative 100 * 2^-24, halved by the root; the rest are a few roundings.
constexpr float kRelative = 1e-5F;

struct Shape {
  int64_t tokens, width;
};
constexpr Shape kShapes[] = {{1, 7168}, {5, 7168}, {3, 2048}, {7, 1536}, {4, 512},   {2, 64},   {9, 16},
                             {3, 13},   {2, 1027}, {2, 8192}, {2, 8199}, {2, 32768}, {300, 128}};

std::vector<float> reference(std::vector<float>& x, std::vector<float> delta,
                             const std::vector<float>& weight, int64_t width) {
  const int64_t tokens = static_cast<int64_t>(x.size()) / width;
  std::vector<float> y(x.size());
  const device::Tensor delta_tensor(delta.data(), DType::kF32, {tokens, width});
  ops::RmsNormArgs args;
  args.x = device::Tensor(x.data(), DType::kF32, {tokens, width});
  args.delta = delta.empty() ? nullptr : &delta_tensor;
  args.weight = weight.data();
  args.y = device::Tensor(y.data(), DType::kF32, {tokens, width});
  ThreadPool pool(1);
  device::Launch launch(pool);
  rms_norm_reference(launch, args);
  return y;
}

TEST(RmsNormCuda, NormAgreesWithTheReference) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(1);
  for (const Shape& shape : kShapes) {
    for (const DType x_type : {DType::kF32, DType::kBF16}) {
      for (const DType y_type : {DType::kF32, DType::kBF16}) {
        for (const int64_t gap : {0, 8, 5}) {
          auto x = rounded(x_type, random_floats(shape.tokens * shape.width, random, 3.0F));
          const auto weight = random_floats(shape.width, random);
          const DeviceMatrix device_x(x_type, shape.tokens, shape.width, x, gap);
          const DeviceMatrix device_y(y_type, shape.tokens, shape.width, gap);
          const DeviceArray<float> device_weight(weight);
          rms_norm(stream, {.x = device_x.view(), .y = device_y.view(), .weight = device_weight.data()});
          const auto got = device_y.get();
          expect_near(got, reference(x, {}, weight, shape.width), kRelative + half_unit(y_type), 1e-30F,
                      shape.width, fmt::format("{}x{} gap {}", shape.tokens, shape.width, gap));
          // In place, and one token alone.
          if (x_type != y_type) continue;
          rms_norm(stream, {.x = device_x.view(), .y = device_x.view(), .weight = device_weight.data()});
          expect_same(device_x.get(), got, shape.width, "in place");
        }
      }
    }
  }
}

TEST(RmsNormCuda, AddNormAgreesWithTheReference) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(2);
  for (const Shape& shape : kShapes) {
    for (const DType delta_type : {DType::kF32, DType::kBF16}) {
      for (const DType y_type : {DType::kF32, DType::kBF16}) {
        for (const bool has_delta : {true, false}) {
          const int64_t gap = static_cast<int64_t>(random() % 3) * 4;
          auto residual = random_floats(shape.tokens * shape.width, random, 2.0F);
          const auto delta =
              rounded(delta_type, random_floats(has_delta ? shape.tokens * shape.width : 0, random));
          const auto weight = random_floats(shape.width, random);
          const DeviceArray<float> device_residual(residual);
          const DeviceArray<float> device_weight(weight);
          const DeviceMatrix device_delta =
              has_delta ? DeviceMatrix(delta_type, shape.tokens, shape.width, delta, gap)
                        : DeviceMatrix(delta_type, 0, 0);
          const DeviceMatrix device_y(y_type, shape.tokens, shape.width, gap);
          AddRmsNormArgs args;
          args.residual = device_residual.data();
          if (has_delta) args.delta = device_delta.view();
          args.weight = device_weight.data();
          args.y = device_y.view();
          add_rms_norm(stream, args);
          const std::string what = fmt::format("{}x{} delta {}", shape.tokens, shape.width, has_delta);
          const auto want = reference(residual, delta, weight, shape.width);
          expect_near(device_y.get(), want, kRelative + half_unit(y_type), 1e-30F, shape.width, what);
          expect_same(device_residual.get(), residual, shape.width, what + " residual");
        }
      }
    }
  }
}

// Alone or in a batch, as vectors or element by element.
TEST(RmsNormCuda, ATokensBitsDependOnItsRowAlone) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(3);
  constexpr int64_t kRows = 40;  // more than clusters take
  for (const int64_t width : {512, 1536, 2048, 5120, 7168, 8192}) {
    const auto x = rounded(DType::kBF16, random_floats(kRows * width, random));
    const DeviceArray<float> weight(random_floats(width, random));
    const DeviceMatrix batch(DType::kBF16, kRows, width, x), batch_y(DType::kBF16, kRows, width);
    rms_norm(stream, {.x = batch.view(), .y = batch_y.view(), .weight = weight.data()});
    const auto want = batch_y.get();
    for (const int64_t gap : {0, 3}) {
      const std::vector<float> row(x.begin() + 4 * width, x.begin() + 5 * width);
      const DeviceMatrix one(DType::kBF16, 1, width, row, gap), one_y(DType::kBF16, 1, width, gap);
      rms_norm(stream, {.x = one.view(), .y = one_y.view(), .weight = weight.data()});
      expect_same(one_y.get(), {want.begin() + 4 * width, want.begin() + 5 * width}, width, "alone");
    }
  }
}

}  // namespace
}  // namespace fathom::ops::cuda

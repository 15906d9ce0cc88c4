#include "ops/cuda_testing.h"
#include "ops/rope/cuda.h"
#include "ops/rope/rope.h"

namespace fathom::ops::cuda {
namespace {

using device::DType;
using device::cuda::testing::DeviceArray;

constexpr int64_t kPositions = 500;

struct Shape {
  int64_t heads, width, half;
};
constexpr Shape kShapes[] = {{16, 192, 32}, {128, 192, 32}, {4, 24, 4}, {1, 64, 32}, {3, 17, 3}, {5, 21, 5}};

// Two products of values of order one and a sum, in float32.
constexpr float kAbsolute = 2e-6F;

RopeTable table_of(int64_t half) {
  RopeTable table;
  table.positions = kPositions;
  table.half = half;
  for (int64_t i = 0; i < kPositions * half; ++i) {
    const double angle = static_cast<double>(i / half) / std::pow(1e4, static_cast<double>(i % half) / 32.0);
    table.cos.push_back(static_cast<float>(std::cos(angle)));
    table.sin.push_back(static_cast<float>(std::sin(angle)));
  }
  return table;
}

TEST(RopeCuda, AgreesWithTheReference) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(1);
  for (const Shape& shape : kShapes) {
    const RopeTable table = table_of(shape.half);
    const DeviceArray<float> cos(table.cos), sin(table.sin);
    const int64_t rope = 2 * shape.half, columns = shape.heads * shape.width;
    for (const int64_t tokens : {1, 7, 130}) {
      for (const auto& [x_type, y_type] :
           {std::pair{DType::kF32, DType::kF32}, {DType::kBF16, DType::kBF16}, {DType::kF32, DType::kBF16}}) {
        for (const int64_t gap : {0, 3}) {
          auto x = rounded(x_type, random_floats(tokens * columns, random));
          std::vector<int32_t> positions, known_positions;
          for (int64_t t = 0; t < tokens; ++t) {
            positions.push_back(t % 5 == 3 ? -1 : static_cast<int32_t>(random() % kPositions));
            known_positions.push_back(std::max(0, positions.back()));
          }
          const DeviceArray<int32_t> device_positions(positions);
          const DeviceMatrix device_x(x_type, tokens, columns, x, gap);
          // Elsewhere: another distance between heads, the rope part first.
          const int64_t y_columns = shape.heads * (rope + 16);
          const DeviceMatrix device_y(y_type, tokens, y_columns, gap);
          RopeArgs args;
          args.x = device_x.view();
          args.heads = shape.heads;
          args.width = shape.width;
          args.y = device_y.view();
          args.y_head_stride = rope + 16;
          args.y_offset = 8;
          args.positions = device_positions.data();
          args.table = {cos.data(), sin.data(), shape.half};
          cuda::rope(stream, args);
          const auto elsewhere = device_y.get();
          args.y = args.x;
          args.y_head_stride = shape.width;
          args.y_offset = shape.width - rope;
          cuda::rope(stream, args);
          const auto in_place = device_x.get();

          std::vector<float> rotated = x;
          ops::RopeArgs ref;
          ref.x = device::Tensor(rotated.data(), DType::kF32, {tokens, shape.heads, shape.width});
          ref.positions = known_positions.data();
          ref.table = &table;
          ThreadPool pool(1);
          device::Launch launch(pool);
          rope_reference(launch, ref);
          std::vector<float> want_in_place = rotated;
          std::vector<float> want(elsewhere.size(), std::numeric_limits<float>::quiet_NaN());
          for (int64_t t = 0; t < tokens; ++t) {
            const auto row = want_in_place.begin() + t * columns;
            if (positions[static_cast<size_t>(t)] < 0) {
              std::copy_n(x.begin() + t * columns, columns, row);
              continue;
            }
            for (int64_t h = 0; h < shape.heads; ++h) {
              std::copy_n(row + (h + 1) * shape.width - rope, rope,
                          want.begin() + t * y_columns + h * (rope + 16) + 8);
            }
          }
          const std::string what =
              fmt::format("{} heads of {}, half {}", shape.heads, shape.width, shape.half);
          expect_near(elsewhere, want, half_unit(y_type), kAbsolute, y_columns, what);
          expect_near(in_place, want_in_place, half_unit(x_type), kAbsolute, columns, what + " in place");
        }
      }
    }
  }
}

}  // namespace
}  // namespace fathom::ops::cuda

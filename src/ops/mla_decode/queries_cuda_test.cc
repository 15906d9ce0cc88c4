#include "ops/mla_decode/queries.h"

#include <optional>

#include "ops/cuda_testing.h"
#include "ops/mla_decode/head_weights_testing.h"

namespace fathom::ops::cuda {
namespace {

using device::DType;
using device::cuda::testing::DeviceArray;

constexpr int32_t kPositions = 300;

struct Shape {
  int64_t heads, nope, latent, half;
  DType cache, weights;
};

struct Result {
  std::vector<float> y, cache;
};

class Queries {
 public:
  Queries(device::cuda::Stream& stream, const Shape& shape, int64_t tokens, std::mt19937& random)
      : stream_(stream),
        shape_(shape),
        tokens_(tokens),
        q_(DType::kBF16, tokens, shape.heads * query(), random_floats(tokens * shape.heads * query(), random),
           8),
        kv_a_(DType::kBF16, tokens, width(), random_floats(tokens * width(), random), 16),
        weights_(shape.weights, shape.heads, shape.latent, shape.nope, random),
        norm_(random_floats(shape.latent, random)),
        cos_(random_floats(kPositions * shape.half, random)),
        sin_(random_floats(kPositions * shape.half, random)) {
    std::vector<int32_t> positions;
    std::vector<int64_t> places;
    for (int64_t t = 0; t < tokens; ++t) {
      const bool padding = tokens > 1 && t % 5 == 1;
      positions.push_back(padding ? -1 : static_cast<int32_t>(random() % kPositions));
      places.push_back(padding ? int64_t{1} << 50 : 2 * tokens - 1 - t);
    }
    positions_.emplace(positions);
    places_.emplace(places);
  }

  // In one kernel, or as three; `expected`: whether one takes it.
  Result run(bool one, bool expected = true) const {
    const DeviceMatrix y(DType::kBF16, tokens_, shape_.heads * width(), 8);
    const DeviceValues cache(shape_.cache, 2 * tokens_ * width());
    MlaQueriesArgs args;
    args.weight = &weights_.weight();
    args.q.x = q_.view();
    args.q.heads = shape_.heads;
    args.q.width = query();
    args.q.y = y.view();
    args.q.y_head_stride = width();
    args.q.y_offset = shape_.latent;
    args.q.positions = positions_->data();
    args.q.table = {cos_.data(), sin_.data(), shape_.half};
    args.latent.kv_a = kv_a_.view();
    args.latent.norm_weight = norm_.data();
    args.latent.rope = args.q.table;
    args.latent.batch.tokens = tokens_;
    args.latent.batch.positions = positions_->data();
    args.latent.batch.places = places_->data();
    args.latent.cache = {cache.data(), shape_.cache, 16, width()};
    if (one) {
      EXPECT_EQ(mla_queries(stream_, args), expected);
    } else {
      rope(stream_, args.q);
      latent_write(stream_, args.latent);
      batched_linear(stream_, {.linear = {.x = args.q.x.slice(0, shape_.nope),
                                          .y = args.q.y.slice(0, shape_.latent),
                                          .weight = &weights_.weight()},
                               .x_step = query(),
                               .y_step = width()});
    }
    EXPECT_TRUE(stream_.synchronize().ok()) << stream_.status().error().message;
    return {y.get(), cache.get()};
  }

  int64_t width() const { return shape_.latent + 2 * shape_.half; }

 private:
  int64_t query() const { return shape_.nope + 2 * shape_.half; }

  device::cuda::Stream& stream_;
  Shape shape_;
  int64_t tokens_;
  DeviceMatrix q_, kv_a_;
  RandomHeads weights_;
  DeviceArray<float> norm_, cos_, sin_;
  std::optional<DeviceArray<int32_t>> positions_;
  std::optional<DeviceArray<int64_t>> places_;
};

TEST(MlaQueriesCuda, HaveTheBitsOfOneKernelAfterAnother) {
  FATHOM_GPU_OR_SKIP(stream);
  if (stream.gpu().major < 9) GTEST_SKIP() << stream.gpu().name;
  std::mt19937 random(3);
  for (const Shape& shape :
       {Shape{16, 128, 512, 32, DType::kBF16, DType::kBF16},
        Shape{128, 128, 512, 32, DType::kBF16, DType::kBF16},
        Shape{128, 128, 512, 32, DType::kBF16, DType::kF8E4M3},
        Shape{64, 128, 512, 32, DType::kF8E4M3, DType::kF8E4M3},
        Shape{4, 32, 64, 8, DType::kBF16, DType::kBF16}, Shape{3, 96, 48, 4, DType::kF32, DType::kBF16},
        Shape{40, 64, 256, 16, DType::kF8E5M2, DType::kBF16},
        Shape{2, 256, 128, 16, DType::kBF16, DType::kF8E4M3}}) {
    for (const int64_t tokens : {1, 2, 7, 8, 9, 16, 17, 32}) {
      const Queries queries(stream, shape, tokens, random);
      const Result want = queries.run(false), got = queries.run(true);
      const std::string what = fmt::format("{} heads of {} to {} ({}), half {}, {}, {} tokens", shape.heads,
                                           shape.nope, shape.latent, device::to_string(shape.weights),
                                           shape.half, device::to_string(shape.cache), tokens);
      expect_same(got.y, want.y, shape.heads * queries.width(), what);
      expect_same(got.cache, want.cache, queries.width(), what + ", entries");
      if (HasFatalFailure()) return;
    }
  }
}

TEST(MlaQueriesCuda, LeaveAloneWhatTheyDoNotTake) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(4);
  for (const auto& [shape, tokens] : {std::pair{Shape{16, 128, 512, 32, DType::kBF16, DType::kBF16}, 33},
                                      {Shape{4, 24, 64, 8, DType::kBF16, DType::kBF16}, 2},
                                      {Shape{4, 64, 64, 8, DType::kBF16, DType::kF8E4M3}, 2}}) {
    const Queries queries(stream, shape, tokens, random);
    for (const auto& values : {queries.run(true, false).y, queries.run(true, false).cache}) {
      EXPECT_TRUE(std::all_of(values.begin(), values.end(), [](float value) { return std::isnan(value); }));
    }
  }
}

}  // namespace
}  // namespace fathom::ops::cuda

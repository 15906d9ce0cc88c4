#include "ops/mla_decode/values.h"

#include "ops/attention/cuda_testing.h"
#include "ops/cuda_testing.h"
#include "ops/mla_decode/head_weights_testing.h"
#include "ops/quantize/cuda.h"
#include "ops/quantize/ref.h"

namespace fathom::ops::cuda {
namespace {

using device::DType;
using device::cuda::testing::DeviceArray;
using testing::GpuSequences;

struct Shape {
  int64_t heads, latent, rope, value;
  DType cache, weights;
  bool rounds;
};

struct Result {
  std::vector<float> y;
  std::vector<uint8_t> values;
  std::vector<float> scales;
};

// Token t is the last of sequence t; length 0 stands for padding.
class HeadsValues {
 public:
  HeadsValues(device::cuda::Stream& stream, const Shape& shape, const std::vector<int32_t>& lengths,
              std::mt19937& random)
      : stream_(stream),
        shape_(shape),
        tokens_(static_cast<int64_t>(lengths.size())),
        longest_(*std::max_element(lengths.begin(), lengths.end())),
        sequences_(lengths, 64, width(), shape.cache, static_cast<uint32_t>(random())),
        q_(DType::kBF16, tokens_, shape.heads * width(),
           random_floats(tokens_ * shape.heads * width(), random), 8),
        weights_(shape.weights, shape.heads, shape.value, shape.latent, random) {
    std::vector<int32_t> positions, slots;
    for (int64_t t = 0; t < tokens_; ++t) {
      positions.push_back(lengths[static_cast<size_t>(t)] - 1);
      slots.push_back(positions.back() < 0 ? 0x7fffffff : static_cast<int32_t>(t));
    }
    positions_ = std::make_unique<DeviceArray<int32_t>>(positions);
    slots_ = std::make_unique<DeviceArray<int32_t>>(slots);
  }

  int64_t columns() const { return shape_.heads * shape_.value; }
  int64_t stride() const { return round_up<int64_t>(columns(), 16) + 16; }

  // In one kernel after the items', or as three; `expected`: whether one takes it.
  Result run(bool one, bool expected = true) const {
    const DeviceMatrix latents(DType::kBF16, tokens_, shape_.heads * shape_.latent, 8);
    const DeviceMatrix y(DType::kBF16, tokens_, columns(), 8);
    const DeviceArray<uint8_t> values(tokens_ * stride());
    const DeviceArray<float> scales((columns() + kQuantizeBlock - 1) / kQuantizeBlock * (tokens_ + 1));
    const DeviceArray<uint8_t> workspace(
        mla_decode_workspace(stream_.gpu(), tokens_, shape_.heads, shape_.latent, longest_));
    MlaValuesArgs args;
    args.decode.q = q_.view();
    args.decode.cache = sequences_.view();
    args.decode.batch.tokens = tokens_;
    args.decode.batch.positions = positions_->data();
    args.decode.batch.slots = slots_->data();
    args.decode.batch.block_tables = sequences_.device_tables();
    args.decode.batch.table_stride = sequences_.table_stride();
    args.decode.heads = shape_.heads;
    args.decode.latent = shape_.latent;
    args.decode.scale = 1.0F / std::sqrt(static_cast<float>(width()));
    args.decode.max_context = longest_;
    args.decode.workspace = workspace.data();
    args.decode.out = latents.view();
    args.weight = &weights_.weight();
    args.y = y.view();
    if (shape_.rounds) {
      args.rounded = {values.data(), scales.data(), tokens_, columns(), stride(), tokens_ + 1};
    }
    if (one) {
      EXPECT_EQ(mla_values(stream_, args), expected);
    } else {
      mla_decode(stream_, args.decode);
      batched_linear(stream_, {.linear = {.x = args.decode.out.slice(0, shape_.latent),
                                          .y = args.y.slice(0, shape_.value),
                                          .weight = args.weight},
                               .x_step = shape_.latent,
                               .y_step = shape_.value});
      if (shape_.rounds) quantize(stream_, {.x = args.y, .y = args.rounded});
    }
    EXPECT_TRUE(stream_.synchronize().ok()) << stream_.status().error().message;
    return {y.get(), values.get(), scales.get()};
  }

  // What one kernel leaves is what three leave, but for padding.
  void compare(const std::string& what) const {
    const Result want = run(false), got = run(true);
    const std::vector<int32_t> positions = positions_->get();
    for (int64_t t = 0; t < tokens_; ++t) {
      if (positions[static_cast<size_t>(t)] < 0) continue;
      const auto row = [&](const auto& all, int64_t width) {
        return std::vector(all.begin() + t * width, all.begin() + (t + 1) * width);
      };
      const std::string here = fmt::format("{}, token {}", what, t);
      expect_same(row(got.y, columns()), row(want.y, columns()), columns(), here);
      EXPECT_TRUE(std::none_of(want.y.begin() + t * columns(), want.y.begin() + (t + 1) * columns(),
                               [](float value) { return std::isnan(value); }))
          << here;
      EXPECT_EQ(row(got.values, stride()), row(want.values, stride())) << here;
      for (size_t i = static_cast<size_t>(t); i < want.scales.size(); i += static_cast<size_t>(tokens_) + 1) {
        ASSERT_EQ(std::bit_cast<uint32_t>(got.scales[i]), std::bit_cast<uint32_t>(want.scales[i]))
            << here << ", scale " << i;
      }
    }
  }

 private:
  int64_t width() const { return shape_.latent + shape_.rope; }

  device::cuda::Stream& stream_;
  Shape shape_;
  int64_t tokens_;
  int32_t longest_;
  GpuSequences sequences_;
  DeviceMatrix q_;
  RandomHeads weights_;
  std::unique_ptr<DeviceArray<int32_t>> positions_, slots_;
};

TEST(MlaValuesCuda, HaveTheBitsOfOneKernelAfterAnother) {
  FATHOM_GPU_OR_SKIP(stream);
  if (!stream.gpu().hopper()) GTEST_SKIP() << stream.gpu().name;
  std::mt19937 random(5);
  for (const Shape& shape : {Shape{128, 512, 64, 128, DType::kBF16, DType::kF8E4M3, true},
                             Shape{128, 512, 64, 128, DType::kBF16, DType::kBF16, true},
                             Shape{64, 512, 64, 128, DType::kBF16, DType::kF8E4M3, true},
                             Shape{48, 512, 64, 128, DType::kF8E4M3, DType::kBF16, false},
                             Shape{50, 512, 64, 32, DType::kBF16, DType::kBF16, false},
                             Shape{49, 512, 64, 128, DType::kF8E5M2, DType::kF8E4M3, true}}) {
    // Queries of one item and of as many as a tree has, alone and side by side.
    for (const std::vector<int32_t>& lengths :
         {std::vector<int32_t>{1}, std::vector<int32_t>{200}, std::vector<int32_t>{1000},
          std::vector<int32_t>{5000}, std::vector<int32_t>{70, 0, 2100, 1},
          std::vector<int32_t>{1, 64, 65, 300, 600, 1025, 0, 900},
          std::vector<int32_t>{7, 1, 40, 500, 0, 130, 1100, 3000, 260},
          std::vector<int32_t>{9, 80, 700, 200, 1300, 90, 100, 0, 33, 64, 128, 1, 1, 520, 1030, 60}}) {
      const HeadsValues values(stream, shape, lengths, random);
      values.compare(fmt::format("{} heads of {} to {} ({}), cache {}, {} tokens, longest {}", shape.heads,
                                 shape.latent, shape.value, device::to_string(shape.weights),
                                 device::to_string(shape.cache), lengths.size(),
                                 *std::max_element(lengths.begin(), lengths.end())));
      if (HasFatalFailure()) return;
    }
  }
}

TEST(MlaValuesCuda, LeaveAloneWhatTheyDoNotTake) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(6);
  for (const auto& [shape, tokens] :
       {std::pair{Shape{64, 512, 64, 128, DType::kBF16, DType::kBF16, false}, 17},
        {Shape{16, 512, 64, 128, DType::kBF16, DType::kBF16, false}, 2},
        {Shape{48, 512, 64, 128, DType::kBF16, DType::kBF16, false}, 2},
        {Shape{64, 256, 16, 128, DType::kBF16, DType::kBF16, false}, 2},
        {Shape{64, 40, 8, 32, DType::kBF16, DType::kBF16, false}, 2},
        {Shape{64, 64, 8, 48, DType::kBF16, DType::kBF16, true}, 2}}) {
    const HeadsValues values(stream, shape, std::vector<int32_t>(static_cast<size_t>(tokens), 50), random);
    const Result got = values.run(true, false);
    EXPECT_TRUE(std::all_of(got.y.begin(), got.y.end(), [](float value) { return std::isnan(value); }));
    EXPECT_TRUE(std::all_of(got.values.begin(), got.values.end(), [](uint8_t b) { return b == 0xff; }));
  }
}

}  // namespace
}  // namespace fathom::ops::cuda

#include <algorithm>
#include <cstring>
#include <numeric>

#include "ops/cuda_testing.h"
#include "ops/moe/cuda.h"

namespace fathom::ops::cuda {
namespace {

using device::DType;
using device::cuda::testing::DeviceArray;

struct Sorted {
  std::vector<int32_t> offsets, tokens, places;
};

Sorted sort_on_host(const std::vector<int32_t>& ids, const std::vector<int32_t>& positions, int32_t experts,
                    int32_t top_k) {
  Sorted sorted;
  sorted.places.assign(ids.size(), -1);
  for (int32_t e = 0; e < experts; ++e) {
    sorted.offsets.push_back(static_cast<int32_t>(sorted.tokens.size()));
    for (size_t i = 0; i < ids.size(); ++i) {
      const auto t = static_cast<int32_t>(i) / top_k;
      if (ids[i] != e || (!positions.empty() && positions[static_cast<size_t>(t)] < 0)) continue;
      sorted.places[i] = static_cast<int32_t>(sorted.tokens.size());
      sorted.tokens.push_back(t);
    }
  }
  sorted.offsets.push_back(static_cast<int32_t>(sorted.tokens.size()));
  return sorted;
}

TEST(ExpertSortCuda, IsAStableSort) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(1);
  struct Shape {
    int64_t tokens;
    int32_t experts, top_k;
  };
  for (const auto& [tokens, experts, top_k] : {Shape{1, 256, 8},
                                               {1, 1, 1},
                                               {7, 64, 6},
                                               {128, 256, 8},
                                               {256, 256, 8},
                                               {257, 256, 8},
                                               {300, 8, 3},
                                               {4096, 256, 8},
                                               {4096, 512, 8},
                                               {1500, 1024, 5},
                                               {16384, 512, 8},
                                               {2000, 3, 2},
                                               {100, 1000, 20}}) {
    for (const int padding : {0, 1, 2}) {  // none, some, all
      std::vector<int32_t> ids, positions;
      std::vector<int32_t> order(static_cast<size_t>(experts));
      std::iota(order.begin(), order.end(), 0);
      for (int64_t t = 0; t < tokens; ++t) {
        // Distinct in a row; low experts more often.
        for (int32_t k = 0; k < top_k; ++k) {
          const auto span = static_cast<uint32_t>(experts - k);
          const auto pick = static_cast<size_t>(k) + std::min(random() % span, random() % span);
          std::swap(order[static_cast<size_t>(k)], order[pick]);
          ids.push_back(order[static_cast<size_t>(k)]);
        }
        if (padding > 0)
          positions.push_back(padding == 2 || random() % 3 == 0 ? -1 : static_cast<int32_t>(t));
      }
      if (padding == 1) {  // a padding token's ids may be anything
        for (size_t i = 0; i < ids.size(); ++i) {
          if (positions[i / static_cast<size_t>(top_k)] < 0) ids[i] = static_cast<int32_t>(random());
        }
      }
      const DeviceArray<int32_t> device_ids(ids), device_positions(positions);
      const DeviceArray<int32_t> offsets(experts + 1), sorted_tokens(tokens * top_k), places(tokens * top_k);
      const DeviceArray<int32_t> workspace(expert_sort_workspace(tokens, experts, top_k));
      ExpertSortArgs args;
      args.ids = device_ids.data();
      args.positions = padding > 0 ? device_positions.data() : nullptr;
      args.tokens = tokens;
      args.experts = experts;
      args.top_k = top_k;
      args.sort = {offsets.data(), sorted_tokens.data(), places.data()};
      args.workspace = workspace.data();
      expert_sort(stream, args);
      const Sorted want = sort_on_host(ids, positions, experts, top_k);
      const std::string what =
          fmt::format("{} tokens, top {} of {}, padding {}", tokens, top_k, experts, padding);
      ASSERT_EQ(offsets.get(), want.offsets) << what;
      ASSERT_EQ(places.get(), want.places) << what;
      auto got_tokens = sorted_tokens.get();
      got_tokens.resize(want.tokens.size());
      ASSERT_EQ(got_tokens, want.tokens) << what;
    }
  }
}

// Experts of other ranks: as if their copies were not there.
TEST(ExpertSortCuda, LeavesOutTheExpertsOfOthers) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(3);
  constexpr int32_t kExperts = 64, kTopK = 6;
  for (const int64_t tokens : {1, 50, 3000}) {
    std::vector<int32_t> slots(kExperts, -1);
    const std::vector<int32_t> own = {3, 9, 10, 40, 63};
    for (size_t i = 0; i < own.size(); ++i) slots[static_cast<size_t>(own[i])] = static_cast<int32_t>(i);
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < tokens * kTopK; ++i) ids.push_back(static_cast<int32_t>(random() % kExperts));
    const auto here = static_cast<int32_t>(own.size());
    const DeviceArray<int32_t> device_ids(ids), device_slots(slots);
    const DeviceArray<int32_t> offsets(here + 1), sorted_tokens(tokens * kTopK), places(tokens * kTopK);
    const DeviceArray<int32_t> workspace(expert_sort_workspace(tokens, here, kTopK));
    ExpertSortArgs args;
    args.ids = device_ids.data();
    args.slots = device_slots.data();
    args.tokens = tokens;
    args.experts = here;
    args.top_k = kTopK;
    args.sort = {offsets.data(), sorted_tokens.data(), places.data()};
    args.workspace = workspace.data();
    expert_sort(stream, args);
    std::vector<int32_t> want_offsets{0}, want_tokens, want_places(ids.size(), -1);
    for (const int32_t expert : own) {
      for (size_t i = 0; i < ids.size(); ++i) {
        if (ids[i] != expert) continue;
        want_places[i] = static_cast<int32_t>(want_tokens.size());
        want_tokens.push_back(static_cast<int32_t>(i) / kTopK);
      }
      want_offsets.push_back(static_cast<int32_t>(want_tokens.size()));
    }
    ASSERT_EQ(offsets.get(), want_offsets) << tokens;
    ASSERT_EQ(places.get(), want_places) << tokens;
    auto got = sorted_tokens.get();
    got.resize(want_tokens.size());
    ASSERT_EQ(got, want_tokens) << tokens;
  }
}

struct CombineShape {
  int64_t tokens, width;
  int32_t top_k;
  std::string name() const { return fmt::format("{}x{} top {}", tokens, width, top_k); }
};
constexpr CombineShape kCombineShapes[] = {{1, 7168, 8},  {5, 7168, 8}, {3, 2048, 6}, {9, 64, 2},
                                           {4, 13, 3},    {3, 1032, 5}, {2, 2050, 8}, {2, 8200, 8},
                                           {16, 5120, 6}, {20, 7168, 8}};

// What experts answered for some tokens, on the GPU. Copies of experts of another rank have no row, and some
// tokens are padding.
struct Answers {
  Answers(const CombineShape& shape, DType dtype, int64_t gap, std::mt19937& random)
      : top_k(shape.top_k),
        rows(dtype, shape.tokens * top_k, shape.width,
             random_floats(shape.tokens * top_k * shape.width, random), gap),
        shared(dtype, shape.tokens, shape.width, random_floats(shape.tokens * shape.width, random)),
        weights(random_floats(shape.tokens * top_k, random)),
        places(shape.tokens * top_k),
        positions(shape.tokens) {
    std::vector<int32_t> order(static_cast<size_t>(shape.tokens * top_k));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    for (int32_t& place : order) place = random() % 5 == 0 ? -1 : place;
    places.set(order);
    std::vector<int32_t> of_tokens;
    for (int64_t t = 0; t < shape.tokens; ++t) of_tokens.push_back(t % 4 == 2 ? -1 : 5);
    positions.set(of_tokens);
  }
  // Without y.
  ExpertCombineArgs args(bool has_shared) const {
    ExpertCombineArgs args;
    args.rows = rows.view();
    args.weights = weights.data();
    args.places = places.data();
    args.positions = positions.data();
    args.top_k = top_k;
    if (has_shared) args.shared = shared.view();
    return args;
  }
  int32_t top_k;
  DeviceMatrix rows, shared;
  DeviceArray<float> weights;
  DeviceArray<int32_t> places, positions;
};

// The sum as y's type holds it, [T, H]; NaN where it leaves y as it is.
std::vector<float> combine_on_host(const CombineShape& shape, const Answers& answers, bool has_shared,
                                   DType y_type) {
  const auto rows = answers.rows.get(), shared = answers.shared.get(), weights = answers.weights.get();
  const auto places = answers.places.get(), positions = answers.positions.get();
  std::vector<float> y;
  for (int64_t t = 0; t < shape.tokens; ++t) {
    for (int64_t c = 0; c < shape.width; ++c) {
      float sum = 0.0F;
      for (int64_t k = 0; k < shape.top_k; ++k) {
        const auto i = static_cast<size_t>(t * shape.top_k + k);
        if (places[i] < 0) continue;
        sum = std::fma(weights[i], rows[static_cast<size_t>(places[i] * shape.width + c)], sum);
      }
      if (has_shared) sum += shared[static_cast<size_t>(t * shape.width + c)];
      const bool padding = positions[static_cast<size_t>(t)] < 0;
      y.push_back(padding ? std::numeric_limits<float>::quiet_NaN() : rounded(y_type, sum));
    }
  }
  return y;
}

TEST(ExpertCombineCuda, AddsInTheOrderOfTheChoices) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(2);
  for (const CombineShape& shape : kCombineShapes) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const DType y_type : {DType::kF32, DType::kBF16}) {
        for (const bool has_shared : {true, false}) {
          const int64_t gap = static_cast<int64_t>(random() % 2) * 8;
          const Answers answers(shape, dtype, gap, random);
          const DeviceMatrix y(y_type, shape.tokens, shape.width, gap);
          ExpertCombineArgs args = answers.args(has_shared);
          args.y = y.view();
          expert_combine(stream, args);
          // The same operations in the same order: the same bits.
          expect_near(y.get(), combine_on_host(shape, answers, has_shared, y_type), 0.0F, 0.0F, shape.width,
                      shape.name());
        }
      }
    }
  }
}

// What expert_combine_norm writes.
struct NormOutputs {
  NormOutputs(const CombineShape& shape, DType dtype, const std::vector<float>& before)
      : residual(DType::kF32, shape.tokens, shape.width, before),
        y(dtype, shape.tokens, shape.width, 8),
        values(shape.tokens * shape.width),
        scales(shape.tokens * ((shape.width + 127) / 128)) {}
  AddRmsNormArgs norm(const float* weight, bool rounds) const {
    AddRmsNormArgs norm;
    norm.residual = static_cast<float*>(residual.view().data);
    norm.weight = weight;
    norm.y = y.view();
    const Matrix& to = norm.y;
    if (rounds) norm.rounded = {values.data(), scales.data(), to.rows, to.columns, to.columns, to.rows};
    return norm;
  }
  DeviceMatrix residual, y;
  DeviceArray<uint8_t> values;
  DeviceArray<float> scales;
};

TEST(ExpertCombineCuda, GoesIntoANormWithTheSameBits) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(3);
  for (const CombineShape& shape : kCombineShapes) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const bool has_shared : {true, false}) {
        const bool rounds = shape.width % 128 == 0;
        const Answers answers(shape, dtype, 0, random);
        const DeviceArray<float> norm_weight(random_floats(shape.width, random));
        const auto before = random_floats(shape.tokens * shape.width, random);
        const NormOutputs want(shape, dtype, before), got(shape, dtype, before);
        // Nothing is added to a padding token's residual.
        const DeviceMatrix delta(DType::kF32, shape.tokens, shape.width,
                                 std::vector<float>(before.size(), 0.0F));
        ExpertCombineArgs args = answers.args(has_shared);
        args.y = delta.view();
        expert_combine(stream, args);
        AddRmsNormArgs norm = want.norm(norm_weight.data(), rounds);
        norm.delta = delta.view();
        add_rms_norm(stream, norm);
        args.y = {};
        expert_combine_norm(stream, args, got.norm(norm_weight.data(), rounds));

        const auto what = shape.name();
        expect_near(got.residual.get(), want.residual.get(), 0.0F, 0.0F, shape.width, what);
        expect_near(got.y.get(), want.y.get(), 0.0F, 0.0F, shape.width, what);
        EXPECT_EQ(got.values.get(), want.values.get()) << what;
        const auto bits = [](std::vector<float> scales) {  // NaN where nothing was written
          std::vector<uint32_t> all(scales.size());
          std::memcpy(all.data(), scales.data(), scales.size() * sizeof(float));
          return all;
        };
        EXPECT_EQ(bits(got.scales.get()), bits(want.scales.get())) << what;
      }
    }
  }
}

}  // namespace
}  // namespace fathom::ops::cuda

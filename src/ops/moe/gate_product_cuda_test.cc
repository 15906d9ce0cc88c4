// gate_product_and_sort against the product, and then the gate and the sort, bit for bit.
#include "device/cuda/graph.h"
#include "ops/cuda_testing.h"
#include "ops/moe/cuda.h"
#include "ops/test_size.h"

namespace fathom::ops::cuda {
namespace {

using device::DType;
using device::cuda::testing::DeviceArray;
using Method = GateParams::Method;
using Scoring = GateParams::Scoring;

struct Shape {
  Method method;
  Scoring scoring;
  int32_t experts, top_k, groups, top_groups;
  int64_t k;
};
// The gates of V3, V2 and V2-Lite, or less of them.
std::vector<Shape> models() {
  if (small_tests())
    return {{Method::kNoAuxTc, Scoring::kSigmoid, 40, 8, 8, 4, 2568},
            {Method::kGroupLimitedGreedy, Scoring::kSoftmax, 24, 6, 8, 3, 1000},
            {Method::kGreedy, Scoring::kSoftmax, 16, 6, 1, 1, 520}};
  return {{Method::kNoAuxTc, Scoring::kSigmoid, 256, 8, 8, 4, 7168},
          {Method::kGroupLimitedGreedy, Scoring::kSoftmax, 160, 6, 8, 3, 5120},
          {Method::kGreedy, Scoring::kSoftmax, 64, 6, 1, 1, 2048}};
}

GateParams params_of(const Shape& shape) {
  GateParams params;
  params.scoring = shape.scoring;
  params.method = shape.method;
  params.experts = shape.experts;
  params.top_k = shape.top_k;
  params.groups = shape.groups;
  params.top_groups = shape.top_groups;
  params.normalise = shape.experts % 3 != 0;
  params.scaling = 2.5F;
  return params;
}

// The same bits; a NaN is a NaN.
void expect_equal(const std::vector<float>& got, const std::vector<float>& want, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(want[i])) {
      ASSERT_TRUE(std::isnan(got[i])) << what << " weight " << i << " is " << got[i];
    } else {
      ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(want[i]))
          << what << " weight " << i << " is " << got[i] << ", not " << want[i];
    }
  }
}

// What calls leave behind, poisoned before.
struct Routes {
  Routes(const Shape& shape, int64_t tokens, int32_t here)
      : logits(tokens * shape.experts),
        weights(tokens * shape.top_k),
        ids(tokens * shape.top_k),
        offsets(here + 1),
        tokens_of_rows(tokens * shape.top_k),
        places(tokens * shape.top_k),
        scratch(std::max<int64_t>(expert_sort_workspace(tokens, here, shape.top_k), 1)) {}

  void poison() const {
    const auto fill = [](const auto& array) {
      using T = std::remove_pointer_t<decltype(array.data())>;
      ASSERT_EQ(cudaMemset(array.data(), 0xff, static_cast<size_t>(array.size()) * sizeof(T)), cudaSuccess);
    };
    fill(logits);
    fill(weights);
    fill(ids);
    fill(offsets);
    fill(tokens_of_rows);
    fill(places);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  }

  DeviceArray<float> logits, weights;
  DeviceArray<int32_t> ids, offsets, tokens_of_rows, places, scratch;
};

void expect_equal(const Routes& got, const Routes& want, const std::string& what) {
  ASSERT_EQ(got.ids.get(), want.ids.get()) << what;
  ASSERT_NO_FATAL_FAILURE(expect_equal(got.weights.get(), want.weights.get(), what));
  const std::vector<int32_t> offsets = want.offsets.get();
  ASSERT_EQ(got.offsets.get(), offsets) << what;
  ASSERT_EQ(got.places.get(), want.places.get()) << what;
  std::vector<int32_t> got_tokens = got.tokens_of_rows.get(), want_tokens = want.tokens_of_rows.get();
  got_tokens.resize(static_cast<size_t>(offsets.back()));
  want_tokens.resize(got_tokens.size());
  ASSERT_EQ(got_tokens, want_tokens) << what;
}

// A gate and the tokens that come to it.
class Case {
 public:
  // ties: few values, so that many logits are equal.
  Case(const Shape& shape, std::mt19937& random, bool ties = false)
      : shape_(shape),
        params_(params_of(shape)),
        ties_(ties),
        k_stride_((shape.k + 15) / 16 * 16),
        weight_(DType::kBF16, shape.experts, k_stride_, draw_weight(random)),
        bias_(draw(shape.experts, random, 0.05F)),
        workspace_(gate_product_workspace(shape.experts) / 8) {}  // all 0xff

  // x [tokens, k], its rows apart.
  DeviceMatrix draw_tokens(int64_t tokens, std::mt19937& random) const {
    return {DType::kBF16, tokens, shape_.k, draw(tokens * shape_.k, random, 1.0F), 24};
  }

  // positions: of as many tokens as x has; slots: null, or of `here` experts.
  void run(device::cuda::Stream& stream, bool together, const Matrix& x, const int32_t* positions,
           const int32_t* slots, int32_t here, const Routes& to) const {
    const Weight weight{.data = weight_.view().data,
                        .dtype = DType::kBF16,
                        .n = shape_.experts,
                        .k = shape_.k,
                        .k_stride = k_stride_,
                        .parted = true};
    const LinearArgs product{
        .x = x, .y = {to.logits.data(), DType::kF32, x.rows, shape_.experts}, .weight = &weight};
    const GateArgs gate{.logits = to.logits.data(),
                        .bias = shape_.method == Method::kNoAuxTc ? bias_.data() : nullptr,
                        .params = params_,
                        .tokens = x.rows,
                        .ids = to.ids.data(),
                        .weights = to.weights.data()};
    const ExpertSortArgs sort{.ids = to.ids.data(),
                              .positions = positions,
                              .slots = slots,
                              .tokens = x.rows,
                              .experts = here,
                              .top_k = shape_.top_k,
                              .sort = {to.offsets.data(), to.tokens_of_rows.data(), to.places.data()},
                              .workspace = to.scratch.data()};
    if (together) {
      gate_product_and_sort(stream, product, gate, sort, workspace_.data());
    } else {
      linear(stream, product);
      ops::cuda::gate(stream, gate);
      expert_sort(stream, sort);
    }
  }

  const Shape& shape() const { return shape_; }
  // That the workspace is between calls as it was before the first.
  void expect_ready(const std::string& what) const {
    for (const uint64_t word : workspace_.get()) ASSERT_EQ(word, ~uint64_t{0}) << what;
  }

 private:
  std::vector<float> draw(int64_t count, std::mt19937& random, float deviation) const {
    std::vector<float> values = random_floats(count, random, deviation);
    if (ties_) {
      for (float& value : values) value = value > deviation ? 1.0F : value < -deviation ? -1.0F : 0.0F;
    }
    return values;
  }

  // The padding of a weight is zero.
  std::vector<float> draw_weight(std::mt19937& random) const {
    const std::vector<float> values = draw(shape_.experts * shape_.k, random, 0.05F);
    std::vector<float> padded(static_cast<size_t>(shape_.experts * k_stride_), 0.0F);
    for (int64_t n = 0; n < shape_.experts; ++n)
      std::copy_n(values.begin() + n * shape_.k, shape_.k, padded.begin() + n * k_stride_);
    return padded;
  }

  Shape shape_;
  GateParams params_;
  bool ties_;
  int64_t k_stride_;
  DeviceMatrix weight_;
  DeviceArray<float> bias_;
  DeviceArray<uint64_t> workspace_;
};

std::string name(const Shape& s, int64_t tokens) {
  return fmt::format("{} tokens, top {} of {} in {} of {} groups, k {}, method {} scoring {}", tokens,
                     s.top_k, s.experts, s.top_groups, s.groups, s.k, static_cast<int>(s.method),
                     static_cast<int>(s.scoring));
}

// Compares a call of `tokens` tokens, some of them padding, with a part of the experts here.
void compare(device::cuda::Stream& stream, const Case& c, int64_t tokens, const DeviceMatrix& x,
             std::mt19937& random) {
  const Shape& shape = c.shape();
  for (const int padding : {0, 1, 2}) {  // none, some, all
    for (const bool some : {false, true}) {
      std::vector<int32_t> positions(static_cast<size_t>(tokens), 7);
      for (int32_t& position : positions)
        if (padding == 2 || (padding == 1 && random() % 3 == 0)) position = -1;
      std::vector<int32_t> slots(static_cast<size_t>(shape.experts), -1);
      int32_t here = 0;
      for (int32_t e = 0; e < shape.experts; e += 1 + static_cast<int32_t>(random() % 3))
        slots[static_cast<size_t>(e)] = here++;
      if (!some) here = shape.experts;
      const DeviceArray<int32_t> device_positions(positions), device_slots(slots);
      const Routes together(shape, tokens, here), apart(shape, tokens, here);
      const std::string what =
          fmt::format("{}, padding {}, {} experts here", name(shape, tokens), padding, here);
      const int32_t* places = padding == 0 ? nullptr : device_positions.data();
      const int32_t* here_slots = some ? device_slots.data() : nullptr;
      c.run(stream, false, x.view(), places, here_slots, here, apart);
      c.run(stream, true, x.view(), places, here_slots, here, together);
      ASSERT_TRUE(stream.synchronize().ok()) << what << ": " << stream.status().error().message;
      ASSERT_NO_FATAL_FAILURE(expect_equal(together, apart, what));
      ASSERT_NO_FATAL_FAILURE(c.expect_ready(what));
    }
  }
}

TEST(GateProductCuda, IsTheProductThenTheGateThenTheSort) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(6);
  for (const Shape& shape : models()) {
    for (const bool ties : {false, true}) {
      const Case c(shape, random, ties);
      for (int64_t tokens = 1; tokens <= 17; tokens += small_tests() ? 5 : 1)
        ASSERT_NO_FATAL_FAILURE(compare(stream, c, tokens, c.draw_tokens(tokens, random), random));
    }
  }
}

TEST(GateProductCuda, TakesAnyShape) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(7);
  struct Sizes {
    int32_t experts, groups;
    int64_t k;
  };
  // One part of k and many, the last one short or all there; more experts or a longer k than one launch
  // takes.
  for (const auto& [experts, groups, k] : {Sizes{3, 1, 48},
                                           {1, 1, 8},
                                           {16, 4, 512},
                                           {17, 1, 520},
                                           {33, 11, 1000},
                                           {64, 64, 1024},
                                           {72, 3, 1472},
                                           {200, 8, 8192},
                                           {256, 32, 2568},
                                           {255, 15, 4096},
                                           {300, 4, 1024},
                                           {40, 8, 8200}}) {
    if (small_tests() && experts * k > 10'000) continue;
    for (const Method method : {Method::kGreedy, Method::kGroupLimitedGreedy, Method::kNoAuxTc}) {
      for (const Scoring scoring : {Scoring::kSoftmax, Scoring::kSigmoid}) {
        Shape shape{method, scoring, experts, 0, groups, 0, k};
        shape.top_k = 1 + static_cast<int32_t>(random() % static_cast<uint32_t>(std::min(experts, 9)));
        if (random() % 7 == 0) shape.top_k = experts;
        shape.top_groups = 1 + static_cast<int32_t>(random() % static_cast<uint32_t>(groups));
        const Case c(shape, random, random() % 4 == 0);
        for (const int64_t tokens :
             {int64_t{1}, int64_t{2} + static_cast<int64_t>(random() % 14), int64_t{16}})
          ASSERT_NO_FATAL_FAILURE(compare(stream, c, tokens, c.draw_tokens(tokens, random), random));
      }
    }
  }
}

// A token whose activations are no numbers gets distinct experts, and the others what they would have.
TEST(GateProductCuda, BrokenTokensAreOnTheirOwn) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(8);
  for (const Shape& shape : models()) {
    const Case c(shape, random);
    std::vector<float> values = random_floats(5 * shape.k, random);
    values[static_cast<size_t>(shape.k)] = std::numeric_limits<float>::quiet_NaN();
    values[static_cast<size_t>(3 * shape.k + 500)] = std::numeric_limits<float>::infinity();
    const DeviceMatrix x(DType::kBF16, 5, shape.k, values);
    ASSERT_NO_FATAL_FAILURE(compare(stream, c, 5, x, random));
  }
}

// A token's experts and weights are the same bits in any batch.
TEST(GateProductCuda, TheBatchDoesNotMatter) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(9);
  for (const Shape& shape : models()) {
    const Case c(shape, random);
    const DeviceMatrix x = c.draw_tokens(16, random);
    const Routes whole(shape, 16, shape.experts);
    c.run(stream, true, x.view(), nullptr, nullptr, shape.experts, whole);
    const std::vector<int32_t> ids = whole.ids.get();
    const std::vector<float> weights = whole.weights.get();
    for (const int64_t tokens : {1, 3, 8, 9}) {
      for (int64_t first = 0; first + tokens <= 16; first += 5) {
        const Routes part(shape, tokens, shape.experts);
        c.run(stream, true, x.view().row_range(first, first + tokens), nullptr, nullptr, shape.experts, part);
        const auto begin = first * shape.top_k, end = begin + tokens * shape.top_k;
        const std::string what = fmt::format("{}, from {} on", name(shape, tokens), first);
        ASSERT_EQ(part.ids.get(), std::vector<int32_t>(ids.begin() + begin, ids.begin() + end)) << what;
        ASSERT_NO_FATAL_FAILURE(expect_equal(
            part.weights.get(), std::vector<float>(weights.begin() + begin, weights.begin() + end), what));
      }
    }
  }
}

// A captured graph of many calls behind each other, of different sizes and of one workspace, replayed: each
// call finds the workspace as the first one did.
TEST(GateProductCuda, ReplaysGiveTheSame) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(10);
  for (const Shape& shape : models()) {
    const Case c(shape, random);
    const DeviceMatrix x = c.draw_tokens(16, random);
    std::vector<std::unique_ptr<Routes>> together, apart;
    for (int64_t tokens = 1; tokens <= 16; ++tokens) {
      together.push_back(std::make_unique<Routes>(shape, tokens, shape.experts));
      apart.push_back(std::make_unique<Routes>(shape, tokens, shape.experts));
    }
    const auto run = [&](bool at_once, const std::vector<std::unique_ptr<Routes>>& to) {
      for (int64_t tokens = 1; tokens <= 16; ++tokens) {
        c.run(stream, at_once, x.view().first_rows(tokens), nullptr, nullptr, shape.experts,
              *to[static_cast<size_t>(tokens - 1)]);
      }
    };
    run(false, apart);
    ASSERT_TRUE(stream.synchronize().ok()) << stream.status().error().message;
    run(true, together);  // kernels are not loaded during a capture
    auto graph = device::cuda::Graph::capture(stream, [&] { run(true, together); });
    ASSERT_TRUE(graph.ok()) << graph.error().message;
    for (int replay = 0; replay < (small_tests() ? 2 : 20); ++replay) {
      ASSERT_TRUE(stream.synchronize().ok()) << stream.status().error().message;
      for (const auto& routes : together) ASSERT_NO_FATAL_FAILURE(routes->poison());
      graph->launch(stream);
      ASSERT_TRUE(stream.synchronize().ok()) << stream.status().error().message;
      for (size_t i = 0; i < together.size(); ++i) {
        ASSERT_NO_FATAL_FAILURE(
            expect_equal(*together[i], *apart[i],
                         fmt::format("replay {}: {}", replay, name(shape, static_cast<int64_t>(i) + 1))));
      }
      ASSERT_NO_FATAL_FAILURE(c.expect_ready(name(shape, 16)));
    }
  }
}

}  // namespace
}  // namespace fathom::ops::cuda

#include <fstream>
#include <map>

#include "ops/cuda_testing.h"
#include "ops/gate/cuda.h"
#include "ops/gate/gate.h"

namespace fathom::ops::cuda {
namespace {

using device::DType;
using device::cuda::testing::DeviceArray;
using Method = GateParams::Method;
using Scoring = GateParams::Scoring;

struct Choice {
  std::vector<int32_t> ids;
  std::vector<float> weights;
};

Choice run(device::cuda::Stream& stream, const GateParams& params, const std::vector<float>& logits,
           const std::vector<float>& bias) {
  const auto tokens = static_cast<int64_t>(logits.size()) / params.experts;
  const DeviceArray<float> device_logits(logits), device_bias(bias);
  const DeviceArray<int32_t> ids(tokens * params.top_k);
  const DeviceArray<float> weights(tokens * params.top_k);
  GateArgs args;
  args.logits = device_logits.data();
  args.bias = bias.empty() ? nullptr : device_bias.data();
  args.params = params;
  args.tokens = tokens;
  args.ids = ids.data();
  args.weights = weights.data();
  gate(stream, args);
  return {ids.get(), weights.get()};
}

Choice reference(const GateParams& params, std::vector<float> logits, const std::vector<float>& bias) {
  const auto tokens = static_cast<int64_t>(logits.size()) / params.experts;
  Choice choice{std::vector<int32_t>(static_cast<size_t>(tokens * params.top_k)),
                std::vector<float>(static_cast<size_t>(tokens * params.top_k))};
  ops::GateArgs args;
  args.logits = device::Tensor(logits.data(), DType::kF32, {tokens, params.experts});
  args.bias = bias.empty() ? nullptr : bias.data();
  args.params = params;
  args.ids = device::Tensor(choice.ids.data(), DType::kI32, {tokens, params.top_k});
  args.weights = device::Tensor(choice.weights.data(), DType::kF32, {tokens, params.top_k});
  ThreadPool pool(1);
  device::Launch launch(pool);
  gate_reference(launch, args);
  return choice;
}

// Both sides round the same double computations once; sums in another order, and another exp, may move a
// weight by one unit of float32 (of which it has three roundings).
void expect_choice(const Choice& got, const Choice& want, int32_t top_k, const std::string& what) {
  ASSERT_EQ(got.ids.size(), want.ids.size());
  for (size_t i = 0; i < got.ids.size(); ++i) {
    ASSERT_EQ(got.ids[i], want.ids[i]) << what << " token " << i / static_cast<size_t>(top_k) << " choice "
                                       << i % static_cast<size_t>(top_k);
  }
  expect_near(got.weights, want.weights, 3 * 0x1p-23F, 0.0F, top_k, what);
}

TEST(GateCuda, ChoosesAsTheModelsOwnCode) {
  FATHOM_GPU_OR_SKIP(stream);
  std::ifstream file(FATHOM_SOURCE_DIR "/src/ops/gate/gate_cases.txt");
  ASSERT_TRUE(file.is_open());
  std::string word, name, scoring, method;
  int cases = 0;
  while (file >> word >> name >> scoring >> method) {
    ++cases;
    GateParams params;
    int tokens = 0;
    file >> params.experts >> params.top_k >> params.groups >> params.top_groups >> params.normalise >>
        params.scaling >> tokens;
    params.scoring = scoring == "sigmoid" ? Scoring::kSigmoid : Scoring::kSoftmax;
    params.method = method == "greedy"     ? Method::kGreedy
                    : method == "noaux_tc" ? Method::kNoAuxTc
                                           : Method::kGroupLimitedGreedy;
    std::vector<float> bias(method == "noaux_tc" ? static_cast<size_t>(params.experts) : 0);
    for (float& value : bias) file >> value;
    for (int t = 0; t < tokens; ++t) {
      std::vector<float> logits(static_cast<size_t>(params.experts));
      for (float& value : logits) file >> value;
      std::map<int32_t, float> want;
      for (int k = 0; k < params.top_k; ++k) {
        int32_t id = 0;
        file >> id;
        file >> want[id];
      }
      const Choice got = run(stream, params, logits, bias);
      for (size_t k = 0; k < got.ids.size(); ++k) {
        // Among the experts of weight zero that group_limited_greedy may end on, the choice is free.
        if (got.weights[k] == 0.0F && params.method == Method::kGroupLimitedGreedy) continue;
        ASSERT_TRUE(want.contains(got.ids[k])) << name << " token " << t << " expert " << got.ids[k];
        // float32 exponentials and sums on the other side: a few units in the last place.
        EXPECT_NEAR(got.weights[k], want[got.ids[k]], 1e-6F * params.scaling) << name << " token " << t;
      }
      expect_choice(got, reference(params, logits, bias), params.top_k, name);
    }
  }
  EXPECT_EQ(cases, 5);
}

TEST(GateCuda, ChoosesAsTheReferenceOnRandomLogits) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(4);
  struct Sizes {
    int32_t experts, groups;
  };
  const Sizes sizes[] = {{64, 1},  {160, 8},   {256, 8},   {96, 3},    {160, 5},  {32, 1},
                         {8, 2},   {1, 1},     {72, 3},    {33, 1},    {31, 31},  {96, 48},
                         {512, 8}, {1024, 32}, {1000, 40}, {300, 100}, {128, 16}, {257, 1}};
  int round = 0;
  for (const auto& [experts, groups] : sizes) {
    for (const Method method : {Method::kGreedy, Method::kGroupLimitedGreedy, Method::kNoAuxTc}) {
      for (const Scoring scoring : {Scoring::kSoftmax, Scoring::kSigmoid}) {
        for (const bool ties : {false, true}) {
          ++round;
          GateParams params;
          params.experts = experts;
          params.groups = groups;
          params.top_k = 1 + static_cast<int32_t>(random() % static_cast<uint32_t>(std::min(experts, 9)));
          if (round % 7 == 0) params.top_k = experts;
          params.top_groups = 1 + static_cast<int32_t>(random() % static_cast<uint32_t>(groups));
          params.scoring = scoring;
          params.method = method;
          params.normalise = random() % 2 == 0;
          params.scaling = 2.5F;
          const int64_t tokens = 41;
          auto logits = random_floats(tokens * experts, random, 2.0F);
          std::vector<float> bias;
          if (method == Method::kNoAuxTc) bias = random_floats(experts, random);
          if (ties) {  // whole numbers, saturated sigmoids, zeros of both signs
            for (float& value : logits) value = std::round(value * 15.0F);
            for (float& value : bias) value = std::round(value) * 0.0F;
          }
          const std::string what = fmt::format(
              "{} experts, {} of {} groups, top {}, method {} scoring {} ties {}", experts, params.top_groups,
              groups, params.top_k, static_cast<int>(method), static_cast<int>(scoring), ties);
          expect_choice(run(stream, params, logits, bias), reference(params, logits, bias), params.top_k,
                        what);
        }
      }
    }
  }
}

// A broken row gives NaN weights, but its experts are distinct and exist, and the next row is unharmed.
TEST(GateCuda, NonFiniteLogitsStayInTheirRow) {
  FATHOM_GPU_OR_SKIP(stream);
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  for (const Method method : {Method::kGreedy, Method::kGroupLimitedGreedy, Method::kNoAuxTc}) {
    GateParams params;
    params.experts = 4;
    params.top_k = 3;
    params.groups = 2;
    params.method = method;
    params.scoring = method == Method::kNoAuxTc ? Scoring::kSigmoid : Scoring::kSoftmax;
    const std::vector<float> bias(method == Method::kNoAuxTc ? 4 : 0, 0.0F);
    const std::vector<float> logits{nan, 1, nan, 0, 3, 2, 1, 0, inf, 0, inf, -inf};
    const Choice got = run(stream, params, logits, bias);
    EXPECT_EQ(got.ids, reference(params, logits, bias).ids);
    EXPECT_TRUE(std::isfinite(got.weights[3]));
  }
}

}  // namespace
}  // namespace fathom::ops::cuda

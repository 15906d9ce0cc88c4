#include "ops/gate/gate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <random>
#include <vector>

#include "device/launch.h"

namespace fathom::ops {
namespace {

using Method = GateParams::Method;
using Scoring = GateParams::Scoring;

struct Choice {
  std::vector<int32_t> ids;
  std::vector<float> weights;
};

Choice run(GateFunction function, const GateParams& params, std::vector<float>& logits,
           const std::vector<float>& bias, int threads = 1) {
  const auto tokens = static_cast<int64_t>(logits.size()) / params.experts;
  Choice choice{std::vector<int32_t>(static_cast<size_t>(tokens * params.top_k), -1),
                std::vector<float>(static_cast<size_t>(tokens * params.top_k), -1.0F)};
  GateArgs args;
  args.logits = device::Tensor(logits.data(), device::DType::kF32, {tokens, params.experts});
  args.bias = bias.empty() ? nullptr : bias.data();
  args.params = params;
  args.ids = device::Tensor(choice.ids.data(), device::DType::kI32, {tokens, params.top_k});
  args.weights = device::Tensor(choice.weights.data(), device::DType::kF32, {tokens, params.top_k});
  ThreadPool pool(threads);
  device::Launch launch(pool);
  function(launch, args);
  return choice;
}

std::vector<GateFunction> functions() {
  std::vector<GateFunction> list;
  for (const device::Isa isa : {device::Isa::kReference, device::Isa::kAvx2}) {
    device::Target target;
    target.isa = isa;
    list.push_back(choose_gate(target));
  }
  return list;
}

// gate_cases.py wrote what Hugging Face's routers choose.
TEST(Gate, ChoosesAsTheModelsOwnCode) {
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
      for (const GateFunction function : functions()) {
        const Choice got = run(function, params, logits, bias);
        float previous = std::numeric_limits<float>::infinity();
        for (size_t k = 0; k < got.ids.size(); ++k) {
          // Among the experts of weight zero that group_limited_greedy may end on, the choice is free.
          if (got.weights[k] == 0.0F && params.method == Method::kGroupLimitedGreedy) continue;
          ASSERT_TRUE(want.contains(got.ids[k])) << name << " token " << t << " expert " << got.ids[k];
          // float32 exponentials and sums on the other side: a few units in the last place.
          EXPECT_NEAR(got.weights[k], want[got.ids[k]], 1e-6F * params.scaling) << name << " token " << t;
          if (params.method != Method::kNoAuxTc) {
            EXPECT_LE(got.weights[k], previous) << name << " token " << t;
          }
          previous = got.weights[k];
        }
      }
    }
  }
  EXPECT_EQ(cases, 5);
}

TEST(Gate, BothImplementationsGiveTheSameBits) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  for (int round = 0; round < 60; ++round) {
    GateParams params;
    params.groups = 1 << (random() % 4);
    params.experts = params.groups * static_cast<int32_t>(1 + random() % 20);
    params.top_k = 1 + static_cast<int32_t>(random() % static_cast<uint32_t>(std::min(params.experts, 9)));
    params.top_groups = 1 + static_cast<int32_t>(random() % static_cast<uint32_t>(params.groups));
    params.scoring = round % 2 == 0 ? Scoring::kSoftmax : Scoring::kSigmoid;
    params.method = static_cast<Method>(round % 3);
    params.normalise = random() % 2 == 0;
    params.scaling = 2.5F;
    std::vector<float> logits(static_cast<size_t>(params.experts) * 40),
        bias(static_cast<size_t>(params.experts));
    // Whole numbers in some rounds, and saturated sigmoids, so that there are many ties.
    for (float& value : logits) value = round % 4 == 0 ? std::round(normal(random) * 20) : normal(random);
    for (float& value : bias) value = round % 4 == 0 ? 0.0F : normal(random);
    const Choice want = run(gate_reference, params, logits, bias);
    for (const int threads : {1, 3}) {
      const Choice got = run(functions().back(), params, logits, bias, threads);
      ASSERT_EQ(got.ids, want.ids) << "round " << round;
      ASSERT_EQ(got.weights, want.weights) << "round " << round;
    }
  }
}

TEST(Gate, TiesGoToTheLowerExpert) {
  GateParams params;
  params.experts = 6;
  params.top_k = 3;
  std::vector<float> logits{1, 2, 2, 1, 2, 2};
  for (const GateFunction function : functions()) {
    EXPECT_EQ(run(function, params, logits, {}).ids, (std::vector<int32_t>{1, 2, 4}));
  }
}

// A broken row gives NaN weights, but its experts are distinct and exist, and the next row is unharmed.
TEST(Gate, NonFiniteLogitsStayInTheirRow) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  for (const Method method : {Method::kGreedy, Method::kGroupLimitedGreedy, Method::kNoAuxTc}) {
    GateParams params;
    params.experts = 4;
    params.top_k = 3;
    params.groups = 2;
    params.top_groups = 1;
    params.method = method;
    params.scoring = method == Method::kNoAuxTc ? Scoring::kSigmoid : Scoring::kSoftmax;
    const std::vector<float> bias(4, 0.0F);
    std::vector<float> logits{nan, 1, nan, 0, 3, 2, 1, 0, inf, 0, inf, -inf};
    for (const GateFunction function : functions()) {
      const Choice got = run(function, params, logits, bias);
      for (size_t t = 0; t < 3; ++t) {
        std::vector<bool> seen(4);
        for (size_t k = 0; k < 3; ++k) {
          const int32_t id = got.ids[t * 3 + k];
          ASSERT_TRUE(0 <= id && id < 4 && !seen[static_cast<size_t>(id)]) << id;
          seen[static_cast<size_t>(id)] = true;
        }
      }
      EXPECT_EQ(got.ids[3], 0);
      EXPECT_TRUE(std::isfinite(got.weights[3]));
    }
  }
}

}  // namespace
}  // namespace fathom::ops

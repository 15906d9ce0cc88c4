// gate_and_sort against its two parts, bit for bit.
#include "ops/cuda_testing.h"
#include "ops/moe/cuda.h"

namespace fathom::ops::cuda {
namespace {

using device::cuda::testing::DeviceArray;
using Method = GateParams::Method;
using Scoring = GateParams::Scoring;

// What a call leaves behind.
struct Routes {
  explicit Routes(const GateParams& params, int64_t tokens, int32_t experts)
      : ids(tokens * params.top_k),
        offsets(experts + 1),
        sorted_tokens(tokens * params.top_k),
        places(tokens * params.top_k),
        weights(tokens * params.top_k) {}

  DeviceArray<int32_t> ids, offsets, sorted_tokens, places;
  DeviceArray<float> weights;
};

TEST(GateAndSortCuda, IsTheGateAndThenTheSort) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(5);
  struct Shape {
    Method method;
    Scoring scoring;
    int32_t experts, top_k, groups, top_groups;
  };
  for (const Shape& shape : {Shape{Method::kNoAuxTc, Scoring::kSigmoid, 256, 8, 8, 4},
                             Shape{Method::kGreedy, Scoring::kSoftmax, 64, 6, 1, 1},
                             Shape{Method::kGroupLimitedGreedy, Scoring::kSoftmax, 160, 6, 8, 3},
                             Shape{Method::kGreedy, Scoring::kSoftmax, 3, 2, 1, 1},
                             Shape{Method::kGreedy, Scoring::kSoftmax, 1000, 40, 1, 1}}) {
    GateParams params;
    params.method = shape.method;
    params.scoring = shape.scoring;
    params.experts = shape.experts;
    params.top_k = shape.top_k;
    params.groups = shape.groups;
    params.top_groups = shape.top_groups;
    const std::vector<float> bias = random_floats(params.experts, random);
    const DeviceArray<float> device_bias(bias);
    for (const int64_t tokens : {1, 3}) {
      for (const bool padding : {false, true}) {
        for (const bool some : {false, true}) {  // only every third expert is here
          std::vector<int32_t> slots(static_cast<size_t>(params.experts), -1);
          int32_t here = 0;
          for (int32_t e = 0; e < params.experts; e += 3) slots[static_cast<size_t>(e)] = here++;
          if (!some) here = params.experts;
          const DeviceArray<int32_t> device_slots(slots);
          std::vector<int32_t> positions(static_cast<size_t>(tokens), 7);
          if (padding) positions.front() = -1;
          const DeviceArray<int32_t> device_positions(positions);
          const DeviceArray<float> logits(random_floats(tokens * params.experts, random));
          const Routes together(params, tokens, here), apart(params, tokens, here);
          const auto arguments = [&](const Routes& to) {
            GateArgs gate;
            gate.logits = logits.data();
            gate.bias = params.method == Method::kNoAuxTc ? device_bias.data() : nullptr;
            gate.params = params;
            gate.tokens = tokens;
            gate.ids = to.ids.data();
            gate.weights = to.weights.data();
            ExpertSortArgs sort;
            sort.ids = to.ids.data();
            sort.positions = device_positions.data();
            sort.slots = some ? device_slots.data() : nullptr;
            sort.tokens = tokens;
            sort.experts = here;
            sort.top_k = params.top_k;
            sort.sort = {to.offsets.data(), to.sorted_tokens.data(), to.places.data()};
            return std::pair(gate, sort);
          };
          const auto [gate_args, sort_args] = arguments(apart);
          gate(stream, gate_args);
          expert_sort(stream, sort_args);
          const auto [both_gate, both_sort] = arguments(together);
          gate_and_sort(stream, both_gate, both_sort);
          const std::string what = fmt::format("{} tokens, top {} of {}, padding {}, some {}", tokens,
                                               params.top_k, params.experts, padding, some);
          ASSERT_EQ(together.ids.get(), apart.ids.get()) << what;
          ASSERT_EQ(together.weights.get(), apart.weights.get()) << what;
          const std::vector<int32_t> offsets = apart.offsets.get();
          ASSERT_EQ(together.offsets.get(), offsets) << what;
          ASSERT_EQ(together.places.get(), apart.places.get()) << what;
          std::vector<int32_t> got = together.sorted_tokens.get(), want = apart.sorted_tokens.get();
          got.resize(static_cast<size_t>(offsets.back()));
          want.resize(got.size());
          ASSERT_EQ(got, want) << what;
        }
      }
    }
  }
}

}  // namespace
}  // namespace fathom::ops::cuda

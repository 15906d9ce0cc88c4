// The grouped expert products against the oracle, and the plan against its definition.
#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "ops/linear/rows.h"
#include "ops/linear/testing.h"
#include "ops/moe/moe.h"
#include "ops/moe/plan.h"
#include "ops/swiglu/swiglu.h"
#include "ops/test_size.h"

namespace fathom::ops {
namespace {

using device::Arena;
using device::DType;
using device::Launch;
using device::Target;
using device::Tensor;
using testing::available_targets;
using testing::kPoison;
using testing::random_values;

// Distinct experts for each token; those in `only` when it is not empty.
std::vector<int32_t> random_ids(uint64_t seed, int64_t tokens, int64_t choices, int64_t experts) {
  std::vector<int32_t> ids;
  uint64_t counter = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    std::set<int32_t> chosen;
    while (static_cast<int64_t>(chosen.size()) < choices) {
      const auto e = static_cast<int32_t>(random_bits(seed, 1, counter++) % static_cast<uint64_t>(experts));
      if (chosen.insert(e).second) ids.push_back(e);
    }
  }
  return ids;
}

TEST(MoePlan, SortsPairsByExpert) {
  constexpr int64_t kTokens = 37, kChoices = 3, kExperts = 11;
  std::vector<int32_t> ids = random_ids(3, kTokens, kChoices, kExperts - 1);  // expert 10 gets nothing
  std::vector<std::byte> memory(static_cast<size_t>(MoePlan::bytes(kTokens * kChoices, kExperts)));
  const MoePlan plan =
      plan_moe(Tensor(ids.data(), DType::kI32, {kTokens, kChoices}), kExperts, kAvx2Bf16, memory.data());
  ASSERT_EQ(plan.pairs, kTokens * kChoices);
  EXPECT_EQ(plan.active, 10);
  std::vector<int32_t> expert_of(static_cast<size_t>(plan.pairs), -1);
  for (int64_t i = 0; i < plan.active; ++i) {
    const ExpertRows& e = plan.experts[i];
    EXPECT_LE(e.rows, plan.experts[std::max<int64_t>(i - 1, 0)].rows);
    for (int32_t r = e.first; r < e.first + e.rows; ++r) {
      ASSERT_EQ(expert_of[static_cast<size_t>(r)], -1);
      expert_of[static_cast<size_t>(r)] = e.expert;
    }
  }
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t j = 0; j < kChoices; ++j) {
      const int32_t row = plan.row_of[t * kChoices + j];
      EXPECT_EQ(plan.token_of[row], t);
      EXPECT_EQ(expert_of[static_cast<size_t>(row)], ids[static_cast<size_t>(t * kChoices + j)]);
    }
  }
}

TEST(MoePlan, PiecesCoverThePanels) {
  for (const int64_t panels : {1, 3, 4, 7, 36, 128, 176}) {
    for (const int64_t active : {1, 6, 64}) {
      for (const int64_t pieces : {16, 32, 1024}) {
        const PanelSplit split = split_panels(panels, active, pieces);
        EXPECT_GE(split.chunk, 1);
        EXPECT_GE(split.chunk * split.chunks, panels);
        EXPECT_LT(split.chunk * (split.chunks - 1), panels);
      }
    }
  }
}

struct Case {
  DType dtype;
  Compute compute;
};

class Moe : public ::testing::TestWithParam<Case> {};

struct Experts {
  Experts(const Case& c, const Target& target, int64_t count, int64_t hidden, int64_t inner, Arena& arena) {
    for (int64_t e = 0; e < count; ++e) {
      const auto seed = static_cast<uint64_t>(100 + e);
      gate_up.push_back(
          random_linear(target, c.compute, c.dtype, 2 * inner, hidden, 0.2F, seed, arena).value());
      down.push_back(
          random_linear(target, c.compute, c.dtype, hidden, inner, 0.2F, 50 + seed, arena).value());
    }
  }
  std::vector<PackedLinear> gate_up, down;
};

TEST_P(Moe, AgreesWithTheOracleAndDoesNotDependOnTheBatch) {
  constexpr int64_t kExperts = 9, kChoices = 3;
  const int64_t most = small_tests() ? 45 : 70;
  for (const auto& [hidden, inner] : {std::pair<int64_t, int64_t>{48, 40}, {160, 144}, {33, 21}}) {
    std::vector<float> x = random_values(1, most * hidden, 1.0F);
    std::vector<float> weights = random_values(2, most * kChoices, 1.0F);
    std::vector<int32_t> ids = random_ids(4, most, kChoices, kExperts);
    const auto args_for = [&](const Experts& experts, std::vector<float>& y, int64_t begin, int64_t end) {
      MoeArgs args{Tensor(x.data(), DType::kF32, {most, hidden}).rows(begin, end),
                   Tensor(ids.data(), DType::kI32, {most, kChoices}).rows(begin, end),
                   Tensor(weights.data(), DType::kF32, {most, kChoices}).rows(begin, end),
                   experts.gate_up,
                   experts.down,
                   Tensor(y.data(), DType::kF32, {most, hidden}).rows(begin, end),
                   false};
      return args;
    };
    for (const Target& target : available_targets()) {
      Arena arena;
      const Experts experts(GetParam(), target, kExperts, hidden, inner, arena);
      const MoeFunction moe = choose_moe(target, GetParam().dtype, GetParam().compute);
      ThreadPool pool(3);
      Launch launch(pool);
      std::vector<float> expected(static_cast<size_t>(most * hidden), kPoison);
      moe_reference(launch, args_for(experts, expected, 0, most));
      // Rounding activations to bf16 (2^-9) before both products, against sums of some hundred terms; else
      // float32.
      const PanelKernel* kernel = choose_panel_kernel(target, GetParam().dtype, GetParam().compute);
      const double relative = kernel != nullptr && kernel->unit_k == 2 ? 2e-2 : 1e-5;
      double largest = 0;
      for (const float v : expected) largest = std::max<double>(largest, std::fabs(v));
      std::vector<float> alone(expected.size(), kPoison);
      for (int64_t t = 0; t < most; ++t) {
        // The oracle takes token by token, and its time.
        if (target.isa != device::Isa::kReference) moe(launch, args_for(experts, alone, t, t + 1));
      }
      for (const int64_t tokens : {int64_t{1}, int64_t{2}, int64_t{5}, int64_t{16}, most}) {
        if (target.isa == device::Isa::kReference && tokens > 5) continue;
        std::vector<float> y(static_cast<size_t>(most * hidden), kPoison);
        moe(launch, args_for(experts, y, most - tokens, most));
        const auto first = static_cast<size_t>((most - tokens) * hidden);
        for (size_t i = 0; i < y.size(); ++i) {
          if (i < first) {
            ASSERT_TRUE(std::isnan(y[i]));
          } else {
            ASSERT_NEAR(y[i], expected[i], relative * largest)
                << to_string(target.isa) << " tokens " << tokens;
          }
        }
        if (target.isa == device::Isa::kReference) continue;
        ASSERT_EQ(std::memcmp(alone.data() + first, y.data() + first, (y.size() - first) * sizeof(float)), 0)
            << to_string(target.isa) << " tokens " << tokens;
      }
    }
  }
}

TEST_P(Moe, ReadsActiveExpertsOnlyAndAccumulates) {
  constexpr int64_t kExperts = 6, kHidden = 64, kInner = 32;
  ThreadPool pool(2);
  Launch launch(pool);
  for (const Target& target : available_targets()) {
    Arena arena;
    Experts experts(GetParam(), target, kExperts, kHidden, kInner, arena);
    std::vector<float> x = random_values(5, 2 * kHidden, 1.0F);
    std::vector<int32_t> ids = {4, 1, 1, 4};
    std::vector<float> weights = {0.5F, 0.25F, 2.0F, 0.0F};
    for (const int e : {0, 2, 3, 5}) {
      experts.gate_up[static_cast<size_t>(e)].data = nullptr;  // whoever reads it dies
      experts.down[static_cast<size_t>(e)].data = nullptr;
    }
    std::vector<float> y(2 * kHidden);
    std::vector<float> sum(2 * kHidden, 3.0F);
    const MoeFunction moe = choose_moe(target, GetParam().dtype, GetParam().compute);
    MoeArgs args{Tensor(x.data(), DType::kF32, {2, kHidden}),
                 Tensor(ids.data(), DType::kI32, {2, 2}),
                 Tensor(weights.data(), DType::kF32, {2, 2}),
                 experts.gate_up,
                 experts.down,
                 Tensor(y.data(), DType::kF32, {2, kHidden}),
                 false};
    moe(launch, args);
    args.y.data = sum.data();
    args.accumulate = true;
    moe(launch, args);
    for (size_t i = 0; i < y.size(); ++i) {
      ASSERT_NEAR(sum[i], y[i] + 3.0F, 1e-5 * (3.0 + std::fabs(y[i]))) << to_string(target.isa);
    }
  }
}

TEST_P(Moe, SharedExpertsAddWhatTheyWouldAlone) {
  constexpr int64_t kExperts = 6, kChoices = 2, kHidden = 96, kInner = 32, kSharedInner = 70, kMost = 33;
  ThreadPool pool(3);
  Launch launch(pool);
  std::vector<float> x = random_values(7, kMost * kHidden, 1.0F);
  std::vector<float> weights = random_values(8, kMost * kChoices, 1.0F);
  std::vector<int32_t> ids = random_ids(9, kMost, kChoices, kExperts);
  const auto [dtype, compute] = GetParam();
  for (const Target& target : available_targets()) {
    Arena arena;
    const Experts experts(GetParam(), target, kExperts, kHidden, kInner, arena);
    const auto up = random_linear(target, compute, dtype, 2 * kSharedInner, kHidden, 0.2F, 77, arena).value();
    const auto down = random_linear(target, compute, dtype, kHidden, kSharedInner, 0.2F, 78, arena).value();
    for (const int64_t tokens : {1, 2, 7, 16, 33}) {
      const auto make = [&](std::vector<float>& memory, int64_t columns) {
        memory.assign(static_cast<size_t>(tokens * columns), kPoison);
        return Tensor(memory.data(), DType::kF32, {tokens, columns});
      };
      std::vector<float> together, apart, gate_up, inner;
      MoeArgs args{Tensor(x.data(), DType::kF32, {tokens, kHidden}),
                   Tensor(ids.data(), DType::kI32, {tokens, kChoices}),
                   Tensor(weights.data(), DType::kF32, {tokens, kChoices}),
                   experts.gate_up,
                   experts.down,
                   make(apart, kHidden),
                   true};
      const Tensor up_out = make(gate_up, 2 * kSharedInner);
      const Tensor activated = make(inner, kSharedInner);
      const LinearFunction linear = choose_linear(target, dtype, compute);
      linear(launch, {args.x, up_out, &up, false});
      choose_swiglu(target)(launch, {up_out, activated});
      linear(launch, {activated, args.y, &down, false});
      const MoeFunction moe = choose_moe(target, dtype, compute);
      moe(launch, args);
      args.y = make(together, kHidden);
      args.accumulate = false;
      args.shared_gate_up = &up;
      args.shared_down = &down;
      moe(launch, args);
      for (size_t i = 0; i < together.size(); ++i) {
        if (target.isa == device::Isa::kReference) {
          ASSERT_NEAR(together[i], apart[i], 1e-5 * (1.0 + std::fabs(apart[i])));
        } else {
          ASSERT_EQ(together[i], apart[i]) << to_string(target.isa) << " tokens " << tokens;
        }
      }
    }
  }
}

// Experts in two parts, as two ranks have them: each answers for its own, and the two add up to the whole.
TEST_P(Moe, LeavesOutTheExpertsOfOthers) {
  constexpr int64_t kExperts = 7, kChoices = 3, kHidden = 48, kInner = 40, kTokens = 21;
  ThreadPool pool(2);
  Launch launch(pool);
  std::vector<float> x = random_values(11, kTokens * kHidden, 1.0F);
  std::vector<float> weights = random_values(12, kTokens * kChoices, 1.0F);
  const std::vector<int32_t> ids = random_ids(13, kTokens, kChoices, kExperts);
  for (const Target& target : available_targets()) {
    Arena arena;
    const Experts experts(GetParam(), target, kExperts, kHidden, kInner, arena);
    const MoeFunction moe = choose_moe(target, GetParam().dtype, GetParam().compute);
    // Of experts [first, end).
    const auto run = [&](int32_t first, int32_t end) {
      std::vector<int32_t> mine = ids;
      for (auto& id : mine) id = id >= first && id < end ? id - first : -1;
      std::vector<float> y(static_cast<size_t>(kTokens * kHidden), kPoison);
      const auto count = static_cast<size_t>(end - first);
      moe(launch, {.x = Tensor(x.data(), DType::kF32, {kTokens, kHidden}),
                   .ids = Tensor(mine.data(), DType::kI32, {kTokens, kChoices}),
                   .weights = Tensor(weights.data(), DType::kF32, {kTokens, kChoices}),
                   .gate_up = std::span(experts.gate_up).subspan(static_cast<size_t>(first), count),
                   .down = std::span(experts.down).subspan(static_cast<size_t>(first), count),
                   .y = Tensor(y.data(), DType::kF32, {kTokens, kHidden})});
      return y;
    };
    const auto whole = run(0, kExperts);
    const auto low = run(0, 2);
    const auto high = run(2, kExperts);
    double largest = 0;
    int64_t empty_rows = 0;
    for (const float v : whole) largest = std::max<double>(largest, std::fabs(v));
    for (size_t i = 0; i < whole.size(); ++i)
      ASSERT_NEAR(low[i] + high[i], whole[i], 1e-5 * largest) << to_string(target.isa) << " at " << i;
    for (size_t t = 0; t < kTokens; ++t) empty_rows += low[t * kHidden] == 0.0F ? 1 : 0;
    EXPECT_GT(empty_rows, 0) << "no token was without an expert of the first part";
    // A call that has no expert at all.
    std::vector<int32_t> none = {-1, -1};
    std::vector<float> y(kHidden, kPoison);
    moe(launch, {.x = Tensor(x.data(), DType::kF32, {1, kHidden}),
                 .ids = Tensor(none.data(), DType::kI32, {1, 2}),
                 .weights = Tensor(weights.data(), DType::kF32, {1, 2}),
                 .gate_up = experts.gate_up,
                 .down = experts.down,
                 .y = Tensor(y.data(), DType::kF32, {1, kHidden})});
    for (const float v : y) ASSERT_EQ(v, 0.0F) << to_string(target.isa);
  }
}

TEST_P(Moe, NoTokensIsNoWork) {
  ThreadPool pool(2);
  Launch launch(pool);
  for (const Target& target : available_targets()) {
    Arena arena;
    const Experts experts(GetParam(), target, 2, 16, 16, arena);
    float f = kPoison;
    int32_t i = 0;
    choose_moe(target, GetParam().dtype, GetParam().compute)(
        launch,
        {Tensor(&f, DType::kF32, {0, 16}), Tensor(&i, DType::kI32, {0, 2}), Tensor(&f, DType::kF32, {0, 2}),
         experts.gate_up, experts.down, Tensor(&f, DType::kF32, {0, 16}), false});
    EXPECT_TRUE(std::isnan(f));
  }
}

INSTANTIATE_TEST_SUITE_P(Weights, Moe,
                         ::testing::Values(Case{DType::kF32, Compute::kF32},
                                           Case{DType::kBF16, Compute::kF32},
                                           Case{DType::kBF16, Compute::kBF16},
                                           Case{DType::kF8E4M3, Compute::kF32},
                                           Case{DType::kF8E4M3, Compute::kBF16}),
                         [](const auto& info) {
                           return std::string(device::to_string(info.param.dtype)) +
                                  (info.param.compute == Compute::kBF16 ? "_bf16" : "_f32");
                         });

}  // namespace
}  // namespace fathom::ops

#include "sched/prompt_budget.h"

#include <gtest/gtest.h>

#include <random>

namespace fathom::sched {
namespace {

struct Machine {
  double base_us, output_us, prompt_us;
  double mixed_us = 0.0;  // of a step with prompts, whatever their length

  double us(int32_t outputs, int32_t prompts) const {
    return base_us + output_us * outputs + (prompts > 0 ? mixed_us : 0.0) + prompt_us * prompts;
  }
};

// Steps of between `fewest` and 60 rows; every other one has prompts, of up to `wanted` tokens.
struct Traffic {
  Machine machine;
  int32_t fewest = 20, wanted = 500;
  double spread = 0.1;       // of the measured times
  double interrupted = 0.0;  // share of steps that take ten times as long

  double worst = 0.0;  // a step's time by that of its decode rows alone, noise apart

  void steps(int count, std::mt19937& random, PromptBudget& budget) {
    std::uniform_real_distribution<double> share(0.0, 1.0);
    worst = 0.0;
    for (int i = 0; i < count; ++i) {
      const auto outputs = fewest + static_cast<int32_t>(random() % static_cast<uint32_t>(61 - fewest));
      const int32_t ready =
          random() % 2 == 0 ? 0 : static_cast<int32_t>(random() % static_cast<uint32_t>(wanted));
      const int32_t prompts = std::min(ready, budget.tokens(outputs, 512));
      const double us = machine.us(outputs, prompts);
      worst = std::max(worst, us / machine.us(outputs, 0));
      double measured = us * (1.0 + spread * (2.0 * share(random) - 1.0));
      if (share(random) < interrupted) measured *= 10.0;
      budget.note({outputs, prompts}, static_cast<int64_t>(measured * 1e3), false);
    }
  }
};

TEST(PromptBudget, LearnsWhatDoublesAStep) {
  std::mt19937 random(3);
  PromptBudget budget(2.0);
  EXPECT_EQ(budget.tokens(30, 512), 64) << "nothing is known";
  Traffic run{{4000, 50, 25}};
  run.steps(400, random, budget);
  // 4000 + 50 * 30 us alone: 220 prompt tokens take as long.
  EXPECT_NEAR(budget.tokens(30, 512), 220, 35);
  EXPECT_EQ(budget.tokens(0, 512), 512) << "nobody waits";
  Traffic slower{{4000, 50, 50}};
  slower.steps(1000, random, budget);
  EXPECT_NEAR(budget.tokens(30, 512), 110, 25);
}

TEST(PromptBudget, RowsThatHardlyVaryGiveNoWildPrices) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    std::mt19937 random(seed);
    PromptBudget budget(1.7);
    // 60 decode rows take 23 ms, with 96 prompt tokens 1.7 times as long; few steps have as many.
    Traffic run{{4500, 308, 168}};
    run.fewest = 58;
    run.wanted = 40;
    run.spread = 0.4;
    run.interrupted = 0.02;
    run.steps(400, random, budget);
    run.wanted = 512;
    run.steps(100, random, budget);
    EXPECT_LT(run.worst, 3.0) << seed;
    EXPECT_GT(budget.tokens(60, 512), 48) << seed;
    EXPECT_LT(budget.tokens(60, 512), 192) << seed;
  }
}

TEST(PromptBudget, TheFirstTokensArePaidForAtLeast) {
  std::mt19937 random(6);
  PromptBudget budget(1.5);
  // Any prompt makes a step 800 us longer, which half of 1000 us does not pay for: 80 tokens cost half of it.
  Traffic run{{400, 10, 5, 800}};
  run.spread = 0.02;
  run.steps(600, random, budget);
  EXPECT_NEAR(budget.tokens(60, 512), 80, 15);
}

TEST(PromptBudget, LearnsWhereEveryStepHasPrompts) {
  std::mt19937 random(8);
  PromptBudget budget(1.7);
  const Machine machine{4500, 308, 168};
  int32_t prompts = 0;
  for (int i = 0; i < 40; ++i) {
    const auto outputs = 20 + i;
    prompts = budget.tokens(outputs, 512) - static_cast<int32_t>(random() % 16);
    budget.note({outputs, prompts}, static_cast<int64_t>(machine.us(outputs, prompts) * 1e3), false);
  }
  EXPECT_NEAR(budget.tokens(60, 512), 96, 20);
}

// Steps on a noisy machine, half of them with prompts, of which every fourth is the end of a long one;
// looks_us(prompts, before) is what it takes them to see the tokens before them.
template <class LooksUs>
void steps_with_long_prompts(std::mt19937& random, PromptBudget& budget, const LooksUs& looks_us) {
  const Machine machine{4500, 308, 168};
  std::uniform_real_distribution<double> noise(0.8, 1.2);
  for (int i = 0; i < 600; ++i) {
    const auto outputs = 55 + static_cast<int32_t>(random() % 8);
    const int32_t prompts = i % 2 == 0 ? 0 : 10 + static_cast<int32_t>(random() % 30);
    const int32_t before = i % 8 == 1 ? 400 + static_cast<int32_t>(random() % 600) : 0;
    const double us = (machine.us(outputs, prompts) + looks_us(prompts, before)) * noise(random);
    budget.note({outputs, prompts, budget.looks(before, prompts)}, static_cast<int64_t>(us * 1e3), false);
  }
}

TEST(PromptBudget, KnowsThePriceOfWhatIsBefore) {
  std::mt19937 random(9);
  PromptBudget budget(1.7);
  steps_with_long_prompts(random, budget, [](int32_t, int32_t before) { return 30.0 * before; });
  EXPECT_NEAR(budget.tokens(60, 512), 80, 30);
  // A token costs 168 us, to see 1000 others 30 ms.
  EXPECT_NEAR(budget.cost_of(1000, 20), 198, 50);
  EXPECT_EQ(budget.cost_of(0, 20), 20);
  EXPECT_NEAR(budget.fitting(1000, budget.cost_of(1000, 20)), 20, 1);
  EXPECT_EQ(budget.fitting(1000, 100), 0) << "its price alone is more";
}

TEST(PromptBudget, KnowsThePriceOfPairs) {
  std::mt19937 random(10);
  PromptBudget budget(1.7, 100);
  steps_with_long_prompts(random, budget,
                          [](int32_t prompts, int32_t before) { return 0.3 * prompts * before; });
  EXPECT_NEAR(budget.tokens(60, 512), 96, 30);
  // A token costs 168 us, and 300 us more to see 1000 others.
  EXPECT_NEAR(budget.cost_of(1000, 20), 56, 12);
  EXPECT_NEAR(budget.fitting(1000, 56), 20, 4);
  EXPECT_EQ(budget.cost_of(1000, 300) - budget.cost_of(1000, 200), 100) << "no more pairs than of 100 tokens";
  for (const int32_t most : {20, 100, 300, 1000}) {
    const int32_t count = budget.fitting(1000, most);
    EXPECT_LE(budget.cost_of(1000, count), most);
    EXPECT_GE(budget.cost_of(1000, count + 1), most);
  }
}

TEST(PromptBudget, FeelsItsWay) {
  PromptBudget budget(2.0);
  const auto note = [&](int32_t prompts) { budget.note({8, prompts}, 1'000'000 + 100 * prompts, false); };
  int32_t before = budget.tokens(8, 8192);
  EXPECT_EQ(before, 1024);
  for (int i = 0; i < 16; ++i) note(0);
  for (int i = 0; i < 16; ++i) note(5);
  EXPECT_EQ(budget.tokens(8, 8192), 1024) << "prompt tokens cost little, but so many were never seen";
  note(1024);
  EXPECT_EQ(budget.tokens(8, 8192), 2048);
  note(2048);
  EXPECT_EQ(budget.tokens(8, 8192), 4096);
}

TEST(PromptBudget, NeverStarvesAPrompt) {
  std::mt19937 random(4);
  PromptBudget budget(1.5);
  Traffic run{{500, 1, 400}};
  run.steps(300, random, budget);
  EXPECT_EQ(budget.tokens(10, 512), 16);
  EXPECT_EQ(budget.tokens(10, 4096), 128);
  EXPECT_EQ(budget.tokens(10, 3), 3);
}

TEST(PromptBudget, GrowsWhilePromptsAreBehind) {
  std::mt19937 random(7);
  PromptBudget budget(2.0);
  const Machine machine{4000, 50, 25};
  Traffic{machine}.steps(400, random, budget);
  const int32_t usual = budget.tokens(20, 4096);
  const auto hold = [&](double seconds, bool behind) {
    for (double passed = 0.0; passed < seconds; passed += 0.005) budget.note({20, 0}, 5'000'000, behind);
  };
  hold(0.8, true);
  EXPECT_NEAR(budget.tokens(20, 4096), usual, 120) << "a burst is no reason";
  hold(3.2, true);
  const int32_t grown = budget.tokens(20, 4096);
  EXPECT_GT(grown, 3 * usual);
  hold(100.0, true);
  EXPECT_EQ(budget.tokens(20, 4096), 4096);
}

TEST(PromptBudget, ShrinksWhenPromptsCatchUp) {
  PromptBudget behind(1.5), idle(1.5);
  for (int i = 0; i < 400; ++i) {
    const int32_t prompts = i % 2 == 0 ? 100 : 0;
    const int64_t ns = 10'000'000 + 100'000 * prompts;
    behind.note({20, prompts}, ns, true);
    idle.note({20, prompts}, ns, false);
  }
  EXPECT_NEAR(behind.tokens(20, 512), 6 * idle.tokens(20, 512), 12) << "behind for six seconds";
  for (int i = 0; i < 200; ++i) behind.note({0, 512}, 10'000'000, false);
  EXPECT_EQ(behind.tokens(20, 512), idle.tokens(20, 512));
}

TEST(PromptBudget, MayBeOff) {
  std::mt19937 random(5);
  PromptBudget budget(0.0);
  Traffic{{500, 1, 400}}.steps(300, random, budget);
  EXPECT_EQ(budget.tokens(10, 512), 512);
}

}  // namespace
}  // namespace fathom::sched

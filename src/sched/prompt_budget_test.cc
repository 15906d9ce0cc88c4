#include "sched/prompt_budget.h"

#include <gtest/gtest.h>

#include <random>

namespace fathom::sched {
namespace {

struct Machine {
  double base_us, output_us, prompt_us;
  int64_t ns(int32_t outputs, int32_t prompts, double noise) const {
    return static_cast<int64_t>((base_us + output_us * outputs + prompt_us * prompts) * noise * 1e3);
  }
};

void run(const Machine& machine, int steps, std::mt19937& random, PromptBudget& budget) {
  std::uniform_real_distribution<double> noise(0.9, 1.1);
  for (int i = 0; i < steps; ++i) {
    const int32_t outputs = static_cast<int32_t>(random() % 40) + 20;
    const int32_t wanted = random() % 2 == 0 ? 0 : static_cast<int32_t>(random() % 500);
    const int32_t prompts = std::min(wanted, budget.tokens(outputs, 512));
    budget.note(outputs, prompts, machine.ns(outputs, prompts, noise(random)));
  }
}

TEST(PromptBudget, LearnsWhatDoublesAStep) {
  std::mt19937 random(3);
  PromptBudget budget(2.0);
  EXPECT_EQ(budget.tokens(30, 512), 512) << "nothing is known";
  const Machine machine{4000, 50, 25};
  run(machine, 400, random, budget);
  // 4000 + 50 * 30 us alone: 220 prompt tokens take as long.
  EXPECT_NEAR(budget.tokens(30, 512), 220, 35);
  EXPECT_EQ(budget.tokens(0, 512), 512) << "nobody waits";
  const Machine slower{4000, 50, 50};
  run(slower, 600, random, budget);
  EXPECT_NEAR(budget.tokens(30, 512), 110, 25);
}

TEST(PromptBudget, NeverStarvesAPrompt) {
  std::mt19937 random(4);
  PromptBudget budget(1.5);
  run({500, 1, 400}, 300, random, budget);
  EXPECT_EQ(budget.tokens(10, 512), 64);
  EXPECT_EQ(budget.tokens(10, 3), 1);
}

TEST(PromptBudget, MayBeOff) {
  std::mt19937 random(5);
  PromptBudget budget(0.0);
  run({500, 1, 400}, 300, random, budget);
  EXPECT_EQ(budget.tokens(10, 512), 512);
}

}  // namespace
}  // namespace fathom::sched

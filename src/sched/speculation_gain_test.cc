#include "sched/speculation_gain.h"

#include <gtest/gtest.h>

namespace fathom::sched {
namespace {

// Steps that guess give `length` tokens a row and cost `cost` times the others.
double share_of_guessing(SpeculationGain& gain, int32_t rows, double length, double cost, int steps) {
  int guessing = 0;
  for (int i = 0; i < steps; ++i) {
    const bool guess = gain.pays(rows);
    guessing += guess ? 1 : 0;
    gain.note(rows, guess, static_cast<int64_t>(1e6 * (guess ? cost : 1.0)),
              static_cast<int64_t>(guess ? length * 100 * rows : 100.0 * rows));
  }
  return static_cast<double>(guessing) / steps;
}

TEST(SpeculationGain, GuessesWhereItPays) {
  SpeculationGain gain;
  EXPECT_TRUE(gain.pays(1)) << "nothing is known yet";
  EXPECT_GT(share_of_guessing(gain, 1, 2.5, 1.4, 2000), 0.97);
  EXPECT_LT(share_of_guessing(gain, 64, 2.5, 3.2, 2000), 0.03);
  EXPECT_GT(share_of_guessing(gain, 1, 2.5, 1.4, 2000), 0.97) << "sizes do not touch each other";
}

TEST(SpeculationGain, LosesLittleWithManyRows) {
  SpeculationGain gain;
  EXPECT_FALSE(gain.pays(256, false)) << "nothing is known yet";
  EXPECT_LE(share_of_guessing(gain, 256, 1.1, 4.0, 500), 0.004);
  EXPECT_GT(share_of_guessing(gain, 256, 3.0, 1.5, 2000), 0.8) << "and notices where it does not";
}

// Steps of 1 and of 4 tokens in turn: 2.5 a step, at 2.2 times the cost.
TEST(SpeculationGain, WeighsTokensNotSteps) {
  SpeculationGain gain;
  int guessing = 0;
  for (int i = 0; i < 2000; ++i) {
    const bool guess = gain.pays(1);
    guessing += guess ? 1 : 0;
    gain.note(1, guess, guess ? 2'200'000 : 1'000'000, !guess ? 1 : guessing % 2 == 0 ? 1 : 4);
  }
  EXPECT_GT(guessing, 1900);
}

TEST(SpeculationGain, NoticesAChange) {
  SpeculationGain gain;
  share_of_guessing(gain, 8, 2.5, 1.5, 2000);
  share_of_guessing(gain, 8, 1.1, 1.5, 500);
  EXPECT_LT(share_of_guessing(gain, 8, 1.1, 1.5, 2000), 0.03);
  share_of_guessing(gain, 8, 3.0, 1.5, 3000);
  EXPECT_GT(share_of_guessing(gain, 8, 3.0, 1.5, 2000), 0.97);
}

// Sizes that see only steps with prompts, which tell nothing, do as their neighbours.
TEST(SpeculationGain, ASizeThatKnowsNothingDoesAsTheNearest) {
  SpeculationGain gain;
  share_of_guessing(gain, 256, 1.1, 2.0, 100);
  share_of_guessing(gain, 4, 2.5, 1.4, 100);
  for (int i = 0; i < 100; ++i) {
    EXPECT_FALSE(gain.pays(200, false));
    EXPECT_TRUE(gain.pays(8, false));
  }
}

TEST(SpeculationGain, ForgivesASlowStep) {
  SpeculationGain gain;
  share_of_guessing(gain, 4, 2.0, 1.5, 1000);
  gain.note(4, true, 1'000'000'000, 800);
  EXPECT_GT(share_of_guessing(gain, 4, 2.0, 1.5, 1000), 0.5);
}

}  // namespace
}  // namespace fathom::sched

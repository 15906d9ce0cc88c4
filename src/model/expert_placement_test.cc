#include "model/expert_placement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <set>

namespace fathom::model {
namespace {

void expect_whole(const ExpertPlacement& placement, const ExpertPlacement& before, int64_t experts) {
  std::set<int32_t> seen;
  ASSERT_EQ(placement.sets.size(), before.sets.size());
  for (size_t set = 0; set < placement.sets.size(); ++set) {
    ASSERT_EQ(placement.sets[set].size(), before.sets[set].size());
    seen.insert(placement.sets[set].begin(), placement.sets[set].end());
  }
  ASSERT_EQ(static_cast<int64_t>(seen.size()), experts) << "every expert is somewhere";
  ASSERT_EQ(*seen.begin(), 0);
  ASSERT_EQ(*seen.rbegin(), experts - 1);
}

TEST(ExpertPlacement, BeginsInOrder) {
  EXPECT_EQ(first_placement(8, 0, 2).sets, (std::vector<std::vector<int32_t>>{{0, 1, 2, 3}, {4, 5, 6, 7}}));
  EXPECT_EQ(first_placement(4, 2, 2).sets, (std::vector<std::vector<int32_t>>{{0, 1, 2}, {3, 0, 1}}));
  EXPECT_EQ(first_placement(5, 0, 2).sets, (std::vector<std::vector<int32_t>>{{0, 1, 2}, {3, 4}}));
}

TEST(ExpertPlacement, GivesTheBusiestExpertCopies) {
  const auto before = first_placement(4, 2, 2);
  const std::vector<int64_t> load = {10, 10, 100, 10};
  const auto after = balance(before, load);
  expect_whole(after, before, 4);
  for (const auto& set : after.sets) EXPECT_EQ(std::count(set.begin(), set.end(), 2), 1) << "one in each set";
  EXPECT_GT(imbalance(before, load), 1.5);
  EXPECT_LT(imbalance(after, load), 1.1);
}

TEST(ExpertPlacement, BalancesRandomLoads) {
  std::mt19937 random(7);
  int moved = 0, kept = 0;
  for (int i = 0; i < 300; ++i) {
    const auto experts = static_cast<int64_t>(random() % 60 + 4);
    const int sets = static_cast<int>(random() % 4 + 1);
    const auto redundant = static_cast<int64_t>(random() % 9);
    std::vector<int64_t> load(static_cast<size_t>(experts));
    for (auto& tokens : load) tokens = random() % 4 == 0 ? 5000 + random() % 5000 : random() % 1000;
    const auto before = first_placement(experts, redundant, sets);
    const auto after = balance(before, load);
    expect_whole(after, before, experts);
    EXPECT_EQ(balance(before, load), after) << "every rank decides the same";
    // No set has more than the even share and one copy.
    double largest = 0;
    for (const int64_t tokens : load) largest = std::max(largest, static_cast<double>(tokens));
    const double mean = static_cast<double>(std::accumulate(load.begin(), load.end(), int64_t{0})) / sets;
    if (redundant == 0 && experts % sets == 0) {
      EXPECT_LE(imbalance(after, load), 1.0 + 2 * largest / mean + 1e-9);
    }
    for (size_t set = 0; set < after.sets.size(); ++set) {
      for (size_t slot = 0; slot < after.sets[set].size(); ++slot) {
        const bool same = after.sets[set][slot] == before.sets[set][slot];
        (same ? kept : moved) += 1;
        const auto& was = before.sets[set];
        if (!same) {
          const auto here = std::count(was.begin(), was.end(), after.sets[set][slot]);
          const auto now = std::count(after.sets[set].begin(), after.sets[set].end(), after.sets[set][slot]);
          EXPECT_GT(now, here) << "an expert of this set went to another slot";
        }
      }
    }
  }
  EXPECT_GT(kept, 0);
  EXPECT_GT(moved, 0);
}

TEST(ExpertPlacement, SlotsNameEveryCopyOnce) {
  const ExpertPlacement placement{{{2, 0, 1}, {1, 2, 3}}};
  const ExpertSlots low = slots_of(placement, 0, 4);
  const ExpertSlots high = slots_of(placement, 1, 4);
  EXPECT_EQ(low.copies(1), 2);
  EXPECT_EQ(low.copies(3), 1);
  EXPECT_EQ(low.slot(1, 0), 2);
  EXPECT_EQ(low.slot(1, 1), -1);
  EXPECT_EQ(high.slot(1, 0), -1);
  EXPECT_EQ(high.slot(1, 1), 0);
  EXPECT_EQ(high.slot(3, 0), 2);
}

}  // namespace
}  // namespace fathom::model

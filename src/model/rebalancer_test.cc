#include "model/rebalancer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace fathom::model {
namespace {

// Moves made from what changes_of() says, from copies of what was there, give the new placement; whoever has
// an expert already gets it from itself.
TEST(Rebalancer, ChangesLeadToTheNewPlacement) {
  std::mt19937 random(5);
  int64_t moved = 0;
  for (int round = 0; round < 100; ++round) {
    const int sets = static_cast<int>(random() % 4 + 1);
    const auto before = first_placement(16, static_cast<int64_t>(random() % 9), sets);
    std::vector<int64_t> load(16);
    for (int64_t& tokens : load) tokens = static_cast<int64_t>(random() % 4 == 0 ? 6000 : random() % 1000);
    std::vector<int64_t> halved = load;
    for (int64_t& tokens : halved) tokens /= 2;
    std::optional<ExpertPlacement> first;
    for (int set = 0; set < sets; ++set) {
      Rebalancer rebalancer(set);
      std::vector<int64_t> counted = load;
      const auto after = rebalancer.next(before, counted);
      EXPECT_EQ(counted, halved) << "what was counted before counts half";
      const ExpertBalance result = rebalancer.result();
      EXPECT_EQ(after.has_value(), result.before - result.after >= kWorthwhileBalance);
      if (set == 0) first = after;
      EXPECT_EQ(after, first) << "all ranks decide the same";
      if (!after) continue;
      ExpertPlacement made = before;
      auto& own = made.sets[static_cast<size_t>(set)];
      int64_t from_others = 0;
      for (const ExpertChange& change : changes_of(before, *after, static_cast<size_t>(set))) {
        const auto& had = before.sets[static_cast<size_t>(set)];
        own[change.slot] = before.sets[change.set][change.set_slot];
        if (change.set == static_cast<size_t>(set)) continue;
        ++from_others;
        EXPECT_EQ(std::count(had.begin(), had.end(), own[change.slot]), 0) << "it was here already";
      }
      EXPECT_EQ(own, after->sets[static_cast<size_t>(set)]);
      EXPECT_EQ(result.moved, from_others);
      moved += from_others;
    }
  }
  EXPECT_GT(moved, 100);
}

}  // namespace
}  // namespace fathom::model

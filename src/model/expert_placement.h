// Which set of ranks has which routed experts of a layer, and how to spread them so that every set has about
// as much to do. Where there are more places than experts, the busiest experts have several (redundant
// experts, as DeepSeek-V3's deployment has them: arXiv:2412.19437, section 3.4). Pure functions: every rank
// comes to the same placement from the same counts.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fathom::model {

struct ExpertPlacement {
  std::vector<std::vector<int32_t>> sets;  // [set][slot] the expert there; every expert is somewhere

  bool operator==(const ExpertPlacement&) const = default;
};

// `sets` sets for `experts` experts and `redundant` further places: one after another where there are none.
ExpertPlacement first_placement(int64_t experts, int64_t redundant, int sets);

// The places of `before` anew, for experts that got `load` tokens each [E]: further copies go to those with
// most tokens a copy, then the busiest copies first to the idlest set. What stays in its set stays in its
// slot.
ExpertPlacement balance(const ExpertPlacement& before, std::span<const int64_t> load);

// A new placement that brings imbalance() down by less is not worth the transfer.
inline constexpr double kWorthwhileBalance = 0.05;

// Tokens of the busiest set over those of the mean one, copies of an expert having equal shares: 1 is even.
double imbalance(const ExpertPlacement& placement, std::span<const int64_t> load);

// Where a rank of set `set` finds the copies of each expert: copy i of expert e has slot
// slots[first[e] + i], or -1 where another set has it. Copies count in the order of sets and slots.
struct ExpertSlots {
  std::vector<int32_t> first;  // [E + 1]
  std::vector<int32_t> slots;

  int32_t copies(int32_t expert) const {
    return first[static_cast<size_t>(expert) + 1] - first[static_cast<size_t>(expert)];
  }
  int32_t slot(int32_t expert, int32_t copy) const {
    return slots[static_cast<size_t>(first[static_cast<size_t>(expert)] + copy)];
  }
};
ExpertSlots slots_of(const ExpertPlacement& placement, int set, int64_t experts);

}  // namespace fathom::model

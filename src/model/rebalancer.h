// What to move when experts are balanced: one rule for ranks on CPUs and on GPUs, whose movers differ in how
// weights travel. For one rank of a stage; all of them come to the same from the same counts.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "model/expert_placement.h"
#include "model/model.h"

namespace fathom::model {

// A slot of a set gets another expert, from a set that has had it: the own one, or the first.
struct ExpertChange {
  size_t slot = 0;
  size_t set = 0, set_slot = 0;  // where the expert is
};
// Of set `set`, in the order of its slots.
std::vector<ExpertChange> changes_of(const ExpertPlacement& before, const ExpertPlacement& after, size_t set);

// Of layers, one after another.
class Rebalancer {
 public:
  // `set`: the rank's.
  explicit Rebalancer(int set) : set_(static_cast<size_t>(set)) {}

  // A layer's new placement, or nothing where it would hardly be better. From `load` [E], tokens that each
  // expert got, which count half from then on.
  std::optional<ExpertPlacement> next(const ExpertPlacement& placement, std::span<int64_t> load);
  // What next() has said so far.
  ExpertBalance result() const;

 private:
  size_t set_;
  ExpertBalance sum_{0.0, 0.0, 0};
  int layers_ = 0;
};

}  // namespace fathom::model

// Moves routed experts between sets of ranks: each rank sends the packed weights that another set needs, and
// puts those that it gets in their slots.
#pragma once

#include <cstddef>
#include <vector>

#include "model/rank_groups.h"
#include "model/rebalancer.h"
#include "model/weights.h"

namespace fathom::model {

class ExpertMover {
 public:
  // For one rank of a stage; all of them must do the same with the same layers.
  ExpertMover(const RankGroups& groups, const Shard& shard)
      : groups_(groups), shard_(shard), rebalancer_(shard.place.set) {}

  // Nothing where experts are not spread, or where a new placement would hardly be better.
  void balance(MoeWeights& moe);
  ExpertBalance result() const { return rebalancer_.result(); }

 private:
  void move(MoeWeights& moe, const ExpertPlacement& after);

  const RankGroups& groups_;
  const Shard& shard_;
  Rebalancer rebalancer_;
  std::vector<std::vector<std::byte>> out_, in_;  // [set]
};

}  // namespace fathom::model

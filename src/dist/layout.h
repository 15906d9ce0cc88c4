// Which rank of the world has which part of the work. Ranks of one TP group are neighbours, for they talk
// most; pipeline stages are furthest apart, for they talk least.
#pragma once

#include "base/result.h"

namespace fathom::dist {

// A rank's place.
struct Coordinates {
  int tp = 0, dp = 0, pp = 0;
  bool operator==(const Coordinates&) const = default;
};

enum class Axis { kTp, kDp, kPp };

struct Layout {
  int tp = 1, dp = 1, pp = 1;

  int size() const { return tp * dp * pp; }
  // rank = (pp index * dp + dp index) * tp + tp index
  Coordinates at(int rank) const { return {rank % tp, rank / tp % dp, rank / (tp * dp)}; }
  int rank_of(const Coordinates& c) const { return (c.pp * dp + c.dp) * tp + c.tp; }
  // For Group::split: the ranks that differ in `axis` only have one colour.
  int colour(Axis axis, int rank) const {
    Coordinates c = at(rank);
    (axis == Axis::kTp ? c.tp : axis == Axis::kDp ? c.dp : c.pp) = 0;
    return rank_of(c);
  }
};

}  // namespace fathom::dist

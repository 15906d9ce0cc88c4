// How one call of mla_decode is cut into items of work. A pure function of the numbers in it; no choice here
// changes a bit of the result.
#pragma once

#include <cstdint>
#include <span>

#include "ops/kv_cache.h"

namespace fathom::ops {

struct MlaDecodePlan {
  int64_t columns = 0;  // queries of a tile: the kernels' lanes or twice as many
  int64_t group = 1;    // tiles that one item attends with to each block it has read
  int64_t units = 0;    // (row, group of tiles)
  int64_t items = 0;    // (row, group of tiles, split)
  int64_t wave = 0;     // items computed between two merges
};

MlaDecodePlan plan_mla_decode(std::span<const AttentionRow> rows, int64_t heads, int64_t latent,
                              int64_t lanes, int64_t split, int64_t threads);

}  // namespace fathom::ops

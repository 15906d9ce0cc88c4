// What one rank of a tensor-parallel group has of the model: some attention heads, some of the inner columns
// of every MLP, some of the vocabulary. A pure function of the config, the rank and their number.
//
// What makes latents (q_a, kv_a), norms, gates, eh_proj and the KV cache is the same on every rank.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/config.h"
#include "weights/slice.h"

namespace fathom::model {

struct Range {
  int64_t first = 0, count = 0;
  int64_t end() const { return first + count; }
  bool operator==(const Range&) const = default;
};

struct Shard {
  int rank = 0, size = 1;
  Range heads;
  Range dense, expert, shared;  // of the inner columns of the MLPs
  Range vocab;
  // Every rank's `vocab`.
  std::vector<Range> vocabs;
};

// kUnsupported when the model cannot be split so; the message names the nearest counts that work.
Result<Shard> make_shard(const ModelConfig& config, int rank, int size);
Shard whole_model(const ModelConfig& config);

// `total` in `size` parts, one after another, the larger ones first. Parts are whole units; where there are
// fewer units than parts, each unit is cut in as many equal ones. A count of 0 means that it cannot be done.
Range split_range(int64_t total, int64_t unit, int rank, int size);

// The part of a stored [n, k] matrix that the rank reads. The scales of FP8 blocks: weights::scale_slice.
weights::Slice slice_of(const ModelConfig& config, const Shard& shard, std::string_view name, int64_t n,
                        int64_t k);

}  // namespace fathom::model

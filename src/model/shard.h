// What one rank has of the model: some attention heads, some of the vocabulary, some inner columns of the
// MLPs, some of the routed experts, some of the layers. A pure function of the config, of how the model is
// split, and of the rank.
//
// What makes latents (q_a, kv_a), norms, gates, eh_proj and the KV cache is the same on every rank of a
// stage.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/config.h"
#include "weights/slice.h"

namespace fathom::model {

// How a model is split over ranks. A stage (pp) has `tp` ranks. They are `dp` groups with requests of their
// own: attention, dense MLPs, embedding and head are split over the tp / dp ranks of a group, which all
// tokens of the group pass through. Experts see the tokens of all groups: the routed ones are spread over
// `ep` sets of ranks, each expert split over the tp / ep ranks of its set; the shared ones are split over all
// tp ranks.
struct Split {
  int tp = 1, dp = 1, ep = 1, pp = 1;
  int redundant = 0;  // further places for routed experts, of all sets together

  int world() const { return tp * pp; }
  int attention_ranks() const { return tp / dp; }
  int expert_ranks() const { return tp / ep; }  // that share an expert
  bool operator==(const Split&) const = default;
};

// A rank's place. Ranks of one group are neighbours, for they talk most; stages are furthest apart.
//   rank = stage * tp + group * (tp / dp) + lane
struct Place {
  int stage = 0;
  int group = 0;  // of requests
  int lane = 0;   // in the group
  int set = 0;    // of experts
};
Place place_of(const Split& split, int rank);

struct Range {
  int64_t first = 0, count = 0;
  int64_t end() const { return first + count; }
  bool contains(int64_t i) const { return i >= first && i < end(); }
  bool operator==(const Range&) const = default;
};

struct Shard {
  Split split;
  int rank = 0;
  Place place;
  Range layers;  // of the config's num_layers; the draft layer is the last stage's
  Range heads;
  Range dense, expert, shared;  // of the inner columns of the MLPs
  std::vector<int32_t>
      experts;  // in its slots, all or a part of each: as they are loaded (expert_placement.h)
  Range vocab;
  // Of every rank of the group.
  std::vector<Range> vocabs;

  bool whole() const { return split.world() == 1; }
  bool first_stage() const { return place.stage == 0; }
  bool last_stage() const { return place.stage == split.pp - 1; }
};

// kUnsupported when the model cannot be split so; the message names the nearest counts that work.
Result<Shard> make_shard(const ModelConfig& config, const Split& split, int rank);
Shard whole_model(const ModelConfig& config);

// `total` in `size` parts, one after another, the larger ones first. Parts are whole units; where there are
// fewer units than parts, each unit is cut in as many equal ones. A count of 0 means that it cannot be done.
Range split_range(int64_t total, int64_t unit, int rank, int size);

// The part of a stored [n, k] matrix that the rank reads, when its layer and its expert are the rank's. The
// scales of FP8 blocks: weights::scale_slice.
weights::Slice slice_of(const ModelConfig& config, const Shard& shard, std::string_view name, int64_t n,
                        int64_t k);
// Layers that the rank keeps a cache of: its own, and the draft layer.
int64_t cached_layers(const ModelConfig& config, const Shard& shard);
// Whether a rank has anything of a stored tensor: not where it is of another stage's layers, or of an expert
// of others.
bool has_part_of(const ModelConfig& config, const Shard& shard, std::string_view name);
// How often: an expert may have several slots.
int64_t copies_of(const Shard& shard, std::string_view name);

}  // namespace fathom::model

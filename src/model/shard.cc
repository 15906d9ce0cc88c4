#include "model/shard.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "model/expert_placement.h"

namespace fathom::model {
namespace {

// Whole FP8 blocks stay FP8 when they are packed (ops/linear/linear.h); panels are 16 columns wide.
int64_t inner_unit(const ModelConfig& config) {
  return config.quantisation == Quantisation::kFp8Block ? 128 : 16;
}
constexpr int64_t kVocabUnit = 16;

// "" or what of the model does not split so, and in how many.
struct Obstacle {
  std::string what;
  int parts = 0;
};

Obstacle obstacle(const ModelConfig& c, const Split& split) {
  const int attention = split.attention_ranks();
  if (c.num_heads % attention != 0) return {fmt::format("{} attention heads", c.num_heads), attention};
  const int64_t unit = inner_unit(c);
  const auto splits = [&](int64_t total, int64_t by, int parts) {
    return split_range(total, by, 0, parts).count > 0;
  };
  const bool experts = c.num_experts > 0 && c.first_moe_layer < c.num_layers + c.draft_layers;
  if (!splits(c.intermediate_size, unit, attention))
    return {fmt::format("dense MLPs of {}", c.intermediate_size), attention};
  if (experts && split.ep > c.num_experts) return {fmt::format("{} routed experts", c.num_experts), split.ep};
  if (experts && !splits(c.moe_intermediate_size, unit, split.tp / split.ep))
    return {fmt::format("experts of {}", c.moe_intermediate_size), split.tp / split.ep};
  if (experts && c.num_shared_experts > 0 && !splits(c.shared_size(), unit, split.tp))
    return {fmt::format("shared experts of {}", c.shared_size()), split.tp};
  if (!splits(c.vocab_size, kVocabUnit, attention))
    return {fmt::format("a vocabulary of {}", c.vocab_size), attention};
  return {};
}

bool works(const ModelConfig& config, const Split& split) {
  return split.tp % split.dp == 0 && split.tp % split.ep == 0 && obstacle(config, split).what.empty();
}

// "2 or 4": the nearest counts of ranks below and above that work.
std::string nearest(const ModelConfig& config, Split split) {
  const int tp = split.tp;
  std::string text;
  for (split.tp = tp - 1; split.tp >= 1 && text.empty(); --split.tp) {
    if (works(config, split)) text = std::to_string(split.tp);
  }
  for (split.tp = tp + 1; split.tp <= config.num_heads * split.dp; ++split.tp) {
    if (!works(config, split)) continue;
    return text + (text.empty() ? "" : " or ") + std::to_string(split.tp);
  }
  return text;
}

// "--tp 8 --ep-size 2"
std::string flags_of(const Split& split) {
  std::string text = fmt::format("--tp {}", split.tp);
  if (split.dp > 1) text += fmt::format(" --dp {}", split.dp);
  if (split.ep > 1) text += fmt::format(" --ep-size {}", split.ep);
  if (split.pp > 1) text += fmt::format(" --pp-size {}", split.pp);
  return text;
}

Result<void> check_split(const ModelConfig& config, const Split& split) {
  const std::string flags = flags_of(split);
  if (split.tp % split.dp != 0) {
    return error(ErrorCode::kInvalidArgument,
                 "{}: the ranks do not split in {} groups of requests; make --tp "
                 "a multiple of --dp",
                 flags, split.dp);
  }
  if (split.tp % split.ep != 0) {
    return error(ErrorCode::kInvalidArgument,
                 "{}: the ranks do not split in {} sets of experts; make --tp a multiple of --ep-size", flags,
                 split.ep);
  }
  if (split.ep > 1 && config.num_experts == 0)
    return error(ErrorCode::kUnsupported, "{}: the model has no experts; leave --ep-size out", flags);
  if (split.redundant > config.num_experts * (split.ep - 1)) {
    return error(
        ErrorCode::kInvalidArgument,
        "--ep-num-redundant-experts {}: each of {} sets has all {} experts with {}; give at most so many",
        split.redundant, split.ep, config.num_experts, config.num_experts * (split.ep - 1));
  }
  if (split.pp > config.num_layers) {
    return error(ErrorCode::kUnsupported, "{}: the model has {} layers; use at most so many stages", flags,
                 config.num_layers);
  }
  const Obstacle found = obstacle(config, split);
  if (found.what.empty()) return {};
  const std::string counts = nearest(config, split);
  return error(ErrorCode::kUnsupported, "{}: the model's {} do not split in {}; use {}", flags, found.what,
               found.parts,
               counts.empty() ? "fewer ranks" : (split == Split{.tp = split.tp} ? "" : "--tp ") + counts);
}

// The layer that a stored tensor is of, or -1.
int64_t layer_of(std::string_view name) {
  constexpr std::string_view kLayers = "model.layers.";
  if (!name.starts_with(kLayers)) return -1;
  int64_t layer = -1;
  std::from_chars(name.data() + kLayers.size(), name.data() + name.size(), layer);
  return layer;
}

// The routed expert that a stored tensor is of, or -1.
int64_t expert_of(std::string_view name) {
  constexpr std::string_view kExperts = ".mlp.experts.";
  const size_t at = name.find(kExperts);
  if (at == name.npos) return -1;
  int64_t expert = -1;
  std::from_chars(name.data() + at + kExperts.size(), name.data() + name.size(), expert);
  return expert;
}

bool ends_with(std::string_view name, std::string_view module) {
  constexpr std::string_view kWeight = ".weight";
  return name.ends_with(kWeight) && name.substr(0, name.size() - kWeight.size()).ends_with(module);
}

}  // namespace

Range split_range(int64_t total, int64_t unit, int rank, int size) {
  if (size == 1 || total == 0) return {0, total};
  const int64_t units = (total + unit - 1) / unit;
  if (units >= size) {
    const int64_t each = units / size;
    const int64_t more = units % size;  // ranks with one unit more
    const int64_t first = std::min(total, (rank * each + std::min<int64_t>(rank, more)) * unit);
    const int64_t end = std::min(total, ((rank + 1) * each + std::min<int64_t>(rank + 1, more)) * unit);
    return {first, end - first};
  }
  if (total % unit != 0 || size % units != 0 || unit % (size / units) != 0) return {};
  const int64_t piece = total / size;
  return {rank * piece, piece};
}

Place place_of(const Split& split, int rank) {
  const int in_stage = rank % split.tp;
  return {rank / split.tp, in_stage / split.attention_ranks(), in_stage % split.attention_ranks(),
          in_stage / split.expert_ranks()};
}

Result<Shard> make_shard(const ModelConfig& config, const Split& split, int rank) {
  FATHOM_CHECK(rank >= 0 && rank < split.world(), "rank={} ranks={}", rank, split.world());
  FATHOM_TRY(check_split(config, split));
  Shard shard;
  shard.split = split;
  shard.rank = rank;
  shard.place = place_of(split, rank);
  shard.layers = split_range(config.num_layers, 1, shard.place.stage, split.pp);
  const int in_stage = rank % split.tp;
  const int lane = shard.place.lane;
  const int lanes = split.attention_ranks();
  const int64_t unit = inner_unit(config);
  shard.heads = split_range(config.num_heads, 1, lane, lanes);
  shard.dense = split_range(config.intermediate_size, unit, lane, lanes);
  const int set = split.expert_ranks();
  shard.expert = split_range(config.moe_intermediate_size, unit, in_stage % set, set);
  shard.shared = split_range(config.shared_size(), unit, in_stage, split.tp);
  shard.experts = std::move(first_placement(config.num_experts, split.redundant, split.ep)
                                .sets[static_cast<size_t>(shard.place.set)]);
  for (int r = 0; r < lanes; ++r)
    shard.vocabs.push_back(split_range(config.vocab_size, kVocabUnit, r, lanes));
  shard.vocab = shard.vocabs[static_cast<size_t>(lane)];
  return shard;
}

Shard whole_model(const ModelConfig& config) {
  return make_shard(config, {}, 0).value();
}

int64_t cached_layers(const ModelConfig& config, const Shard& shard) {
  return shard.layers.count + (shard.last_stage() ? config.draft_layers : 0);
}

int64_t copies_of(const Shard& shard, std::string_view name) {
  const int64_t expert = expert_of(name);
  return expert < 0 ? 1 : std::count(shard.experts.begin(), shard.experts.end(), expert);
}

bool has_part_of(const ModelConfig& config, const Shard& shard, std::string_view name) {
  const bool drafts = shard.last_stage() && config.draft_layers > 0;
  if (const int64_t layer = layer_of(name); layer >= 0) {
    if (layer >= config.num_layers ? !drafts : !shard.layers.contains(layer)) return false;
    return copies_of(shard, name) > 0;
  }
  if (name.starts_with("model.embed_tokens"))
    return shard.first_stage() || drafts || (shard.last_stage() && config.tie_word_embeddings);
  return shard.last_stage();  // the last norm and the head
}

weights::Slice slice_of(const ModelConfig& config, const Shard& shard, std::string_view name, int64_t n,
                        int64_t k) {
  const auto rows = [&](const Range& range, int64_t each) {
    return weights::Slice{range.first * each, range.count * each, 0, k};
  };
  const auto columns = [&](const Range& range, int64_t each) {
    return weights::Slice{0, n, range.first * each, range.count * each};
  };
  if (ends_with(name, "embed_tokens") || ends_with(name, "lm_head")) return rows(shard.vocab, 1);
  if (ends_with(name, "q_b_proj") || ends_with(name, "q_proj")) return rows(shard.heads, config.query_dim());
  if (ends_with(name, "kv_b_proj")) return rows(shard.heads, config.nope_dim + config.value_dim);
  if (ends_with(name, "o_proj")) return columns(shard.heads, config.value_dim);
  const Range& inner = name.find(".shared_experts.") != name.npos ? shard.shared
                       : name.find(".experts.") != name.npos      ? shard.expert
                                                                  : shard.dense;
  if (ends_with(name, "gate_proj") || ends_with(name, "up_proj")) return rows(inner, 1);
  if (ends_with(name, "down_proj")) return columns(inner, 1);
  return {0, n, 0, k};
}

}  // namespace fathom::model

#include "model/shard.h"

#include <algorithm>

namespace fathom::model {
namespace {

// Whole FP8 blocks stay FP8 when they are packed (ops/linear/linear.h); panels are 16 columns wide.
int64_t inner_unit(const ModelConfig& config) {
  return config.quantisation == Quantisation::kFp8Block ? 128 : 16;
}
constexpr int64_t kVocabUnit = 16;

// What does not split in `size`, or nothing.
std::string obstacle(const ModelConfig& c, int size) {
  if (c.num_heads % size != 0) return fmt::format("{} attention heads", c.num_heads);
  const int64_t unit = inner_unit(c);
  const auto splits = [&](int64_t total, int64_t by) { return split_range(total, by, 0, size).count > 0; };
  const bool experts = c.num_experts > 0 && c.first_moe_layer < c.num_layers + c.draft_layers;
  if (!splits(c.intermediate_size, unit)) return fmt::format("dense MLPs of {}", c.intermediate_size);
  if (experts && !splits(c.moe_intermediate_size, unit))
    return fmt::format("experts of {}", c.moe_intermediate_size);
  if (experts && c.num_shared_experts > 0 && !splits(c.shared_size(), unit))
    return fmt::format("shared experts of {}", c.shared_size());
  if (!splits(c.vocab_size, kVocabUnit)) return fmt::format("a vocabulary of {}", c.vocab_size);
  return {};
}

// "2 or 4": the nearest below and above that work.
std::string nearest(const ModelConfig& config, int size) {
  std::string text;
  for (int below = size - 1; below >= 1 && text.empty(); --below) {
    if (obstacle(config, below).empty()) text = std::to_string(below);
  }
  for (int above = size + 1; above <= config.num_heads; ++above) {
    if (!obstacle(config, above).empty()) continue;
    return text + " or " + std::to_string(above);
  }
  return text;
}

bool ends_with(std::string_view name, std::string_view module) {
  constexpr std::string_view kWeight = ".weight";
  return name.ends_with(kWeight) && name.substr(0, name.size() - kWeight.size()).ends_with(module);
}

}  // namespace

Range split_range(int64_t total, int64_t unit, int rank, int size) {
  if (size == 1) return {0, total};
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

Result<Shard> make_shard(const ModelConfig& config, int rank, int size) {
  FATHOM_CHECK(rank >= 0 && rank < size, "rank={} size={}", rank, size);
  if (const std::string what = obstacle(config, size); !what.empty()) {
    return error(ErrorCode::kUnsupported, "--tp {}: the model's {} do not split in {}; use {}", size, what,
                 size, nearest(config, size));
  }
  Shard shard;
  shard.rank = rank;
  shard.size = size;
  shard.heads = split_range(config.num_heads, 1, rank, size);
  shard.dense = split_range(config.intermediate_size, inner_unit(config), rank, size);
  shard.expert = split_range(config.moe_intermediate_size, inner_unit(config), rank, size);
  shard.shared = split_range(config.shared_size(), inner_unit(config), rank, size);
  for (int r = 0; r < size; ++r) shard.vocabs.push_back(split_range(config.vocab_size, kVocabUnit, r, size));
  shard.vocab = shard.vocabs[static_cast<size_t>(rank)];
  return shard;
}

Shard whole_model(const ModelConfig& config) {
  return make_shard(config, 0, 1).value();
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

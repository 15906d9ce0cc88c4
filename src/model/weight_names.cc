#include "model/weight_names.h"

#include <algorithm>
#include <charconv>

namespace fathom::model {

namespace {

using weights::WeightSpec;
constexpr auto kMatrix = WeightSpec::Kind::kMatrix;
constexpr auto kPlain = WeightSpec::Kind::kPlain;

constexpr std::string_view kLayers = "model.layers.";

void add_mlp(std::vector<WeightSpec>& table, const std::string& prefix, int64_t hidden, int64_t inner) {
  table.push_back({prefix + "gate_proj.weight", {inner, hidden}, kMatrix});
  table.push_back({prefix + "up_proj.weight", {inner, hidden}, kMatrix});
  table.push_back({prefix + "down_proj.weight", {hidden, inner}, kMatrix});
}

void add_attention(std::vector<WeightSpec>& table, const std::string& prefix, const ModelConfig& c) {
  const int64_t queries = c.num_heads * c.query_dim();
  if (c.q_lora_rank > 0) {
    table.push_back({prefix + "q_a_proj.weight", {c.q_lora_rank, c.hidden_size}, kMatrix});
    table.push_back({prefix + "q_a_layernorm.weight", {c.q_lora_rank}, kPlain});
    table.push_back({prefix + "q_b_proj.weight", {queries, c.q_lora_rank}, kMatrix});
  } else {
    table.push_back({prefix + "q_proj.weight", {queries, c.hidden_size}, kMatrix});
  }
  table.push_back({prefix + "kv_a_proj_with_mqa.weight", {c.latent_width(), c.hidden_size}, kMatrix});
  table.push_back({prefix + "kv_a_layernorm.weight", {c.kv_lora_rank}, kPlain});
  table.push_back(
      {prefix + "kv_b_proj.weight", {c.num_heads * (c.nope_dim + c.value_dim), c.kv_lora_rank}, kMatrix});
  table.push_back({prefix + "o_proj.weight", {c.hidden_size, c.num_heads * c.value_dim}, kMatrix});
}

// The layer that a tensor's name belongs to, or -1.
int64_t layer_of(std::string_view name) {
  if (!name.starts_with(kLayers)) return -1;
  name.remove_prefix(kLayers.size());
  int64_t layer = -1;
  const auto [end, code] = std::from_chars(name.data(), name.data() + name.size(), layer);
  const bool whole = code == std::errc() && end != name.data() + name.size() && *end == '.';
  return whole ? layer : -1;
}

}  // namespace

std::string layer_prefix(int64_t layer) {
  return std::string(kLayers) + std::to_string(layer) + ".";
}

std::vector<WeightSpec> weight_table(const ModelConfig& config) {
  std::vector<WeightSpec> table;
  table.push_back({"model.embed_tokens.weight", {config.vocab_size, config.hidden_size}, kPlain});
  for (int64_t layer = 0; layer < config.num_layers + config.draft_layers; ++layer) {
    const std::string prefix = layer_prefix(layer);
    if (layer >= config.num_layers) {
      table.push_back({prefix + "enorm.weight", {config.hidden_size}, kPlain});
      table.push_back({prefix + "hnorm.weight", {config.hidden_size}, kPlain});
      table.push_back({prefix + "eh_proj.weight", {config.hidden_size, 2 * config.hidden_size}, kMatrix});
      table.push_back({prefix + "shared_head.norm.weight", {config.hidden_size}, kPlain});
    }
    table.push_back({prefix + "input_layernorm.weight", {config.hidden_size}, kPlain});
    add_attention(table, prefix + "self_attn.", config);
    table.push_back({prefix + "post_attention_layernorm.weight", {config.hidden_size}, kPlain});
    const std::string mlp = prefix + "mlp.";
    if (!config.is_moe(layer)) {
      add_mlp(table, mlp, config.hidden_size, config.intermediate_size);
      continue;
    }
    table.push_back({mlp + "gate.weight", {config.num_experts, config.hidden_size}, kPlain});
    if (config.gate.method == ops::GateParams::Method::kNoAuxTc) {
      table.push_back({mlp + "gate.e_score_correction_bias", {config.num_experts}, kPlain});
    }
    if (config.num_shared_experts > 0) {
      add_mlp(table, mlp + "shared_experts.", config.hidden_size, config.shared_size());
    }
    for (int64_t expert = 0; expert < config.num_experts; ++expert) {
      add_mlp(table, mlp + "experts." + std::to_string(expert) + ".", config.hidden_size,
              config.moe_intermediate_size);
    }
  }
  table.push_back({"model.norm.weight", {config.hidden_size}, kPlain});
  if (!config.tie_word_embeddings) {
    table.push_back({"lm_head.weight", {config.vocab_size, config.hidden_size}, kMatrix});
  }
  return table;
}

bool is_known_extra(const ModelConfig& config, std::string_view name) {
  if (name.ends_with(".rotary_emb.inv_freq")) return true;
  if (config.tie_word_embeddings && name == "lm_head.weight") return true;
  const int64_t layer = layer_of(name);
  return layer >= config.num_layers && layer < config.num_layers + config.mtp_layers;
}

device::DType stored_dtype(const ModelConfig& config, std::string_view name) {
  if (config.quantisation == Quantisation::kNone) return config.dtype;
  const bool quantised = name.find("_proj") != name.npos && !name.ends_with("eh_proj.weight") &&
                         std::none_of(config.unquantised.begin(), config.unquantised.end(),
                                      [&](const std::string& part) { return name.find(part) != name.npos; });
  return quantised ? device::DType::kF8E4M3 : config.dtype;
}

}  // namespace fathom::model

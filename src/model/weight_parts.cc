#include "model/weight_parts.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace fathom::model {
namespace {

using weights::Part;

// Standard deviations of random weights, in units of 1 / sqrt(k). Projections within a block keep magnitude
// or sharpen (attention and routing must not be uniform); what returns to the residual stream is divided by
// the square root of the number of additions, so that activations stay near 1 through all layers and a
// token's own embedding keeps its say in the routing.
constexpr float kInnerGain = 1.5F;
constexpr float kQueryGain = 1.6F;
constexpr float kHeadGain = 3.0F;

}  // namespace

WeightParts::WeightParts(const ModelConfig& config, Shard shard)
    : c_(config),
      shard_(std::move(shard)),
      residual_(1.5F / std::sqrt(2.0F * static_cast<float>(config.num_layers))) {}

Part WeightParts::make(std::string name, int64_t n, int64_t k, float gain) const {
  Part part;
  part.name = std::move(name);
  part.n = n;
  part.k = k;
  part.gain = gain;
  const weights::Slice slice = slice_of(c_, shard_, part.name, n, k);
  if (slice.is_whole(n, k)) return part;
  part.first_row = slice.first_row;
  part.rows = slice.rows;
  part.first_col = slice.first_col;
  part.cols = slice.cols;
  return part;
}

Part WeightParts::embedding() const {
  return make("model.embed_tokens.weight", c_.vocab_size, c_.hidden_size, 1.0F);
}

Part WeightParts::head() const {
  if (!c_.tie_word_embeddings) return make("lm_head.weight", c_.vocab_size, c_.hidden_size, kHeadGain);
  Part head = embedding();
  head.gain = std::sqrt(static_cast<float>(c_.hidden_size));  // the table's deviation is 1
  head.shared = true;
  return head;
}

Part WeightParts::merge(const std::string& prefix) const {
  return make(prefix + "eh_proj.weight", c_.hidden_size, 2 * c_.hidden_size, 1.0F);
}

std::vector<Part> WeightParts::qkv_a(const std::string& prefix) const {
  const int64_t queries = c_.num_heads * c_.query_dim();
  return {c_.q_lora_rank > 0 ? make(prefix + "q_a_proj.weight", c_.q_lora_rank, c_.hidden_size, kQueryGain)
                             : make(prefix + "q_proj.weight", queries, c_.hidden_size, kQueryGain),
          make(prefix + "kv_a_proj_with_mqa.weight", c_.latent_width(), c_.hidden_size, kQueryGain)};
}

Part WeightParts::q_b(const std::string& prefix) const {
  return make(prefix + "q_b_proj.weight", c_.num_heads * c_.query_dim(), c_.q_lora_rank, kQueryGain);
}

Part WeightParts::kv_b(const std::string& prefix) const {
  return make(prefix + "kv_b_proj.weight", c_.num_heads * (c_.nope_dim + c_.value_dim), c_.kv_lora_rank,
              kQueryGain);
}

Part WeightParts::absorb_key(const std::string& prefix, int64_t head) const {
  Part rows = kv_b(prefix);
  rows.shared = true;
  rows.first_row = head * (c_.nope_dim + c_.value_dim);
  rows.rows = c_.nope_dim;
  rows.transposed = true;
  return rows;
}

Part WeightParts::absorb_value(const std::string& prefix, int64_t head) const {
  Part rows = kv_b(prefix);
  rows.shared = true;
  rows.first_row = head * (c_.nope_dim + c_.value_dim) + c_.nope_dim;
  rows.rows = c_.value_dim;
  return rows;
}

Part WeightParts::out(const std::string& prefix) const {
  return make(prefix + "o_proj.weight", c_.hidden_size, c_.num_heads * c_.value_dim, residual_);
}

std::vector<Part> WeightParts::gate_up(const std::string& prefix, int64_t inner) const {
  return {make(prefix + "gate_proj.weight", inner, c_.hidden_size, kInnerGain),
          make(prefix + "up_proj.weight", inner, c_.hidden_size, kInnerGain)};
}

Part WeightParts::down(const std::string& prefix, int64_t inner) const {
  return make(prefix + "down_proj.weight", c_.hidden_size, inner, residual_);
}

Part WeightParts::gate(const std::string& prefix) const {
  return make(prefix + "gate.weight", c_.num_experts, c_.hidden_size, kInnerGain);
}

std::vector<Part> WeightParts::expert_gate_up(const std::string& prefix, int64_t expert) const {
  return gate_up(prefix + "experts." + std::to_string(expert) + ".", c_.moe_intermediate_size);
}

Part WeightParts::expert_down(const std::string& prefix, int64_t expert) const {
  Part part = down(prefix + "experts." + std::to_string(expert) + ".", c_.moe_intermediate_size);
  part.gain = expert_gain();
  return part;
}

// Where the routing weights are not normalised, a softmax over E of logits with deviation 1.5 gives its best
// K about 0.4 in all: the scaling factor of such a model makes up for it.
float WeightParts::expert_gain() const {
  const float total = c_.gate.normalise ? c_.gate.scaling : 0.4F * c_.gate.scaling;
  return residual_ / std::max(1.0F, total);
}

}  // namespace fathom::model

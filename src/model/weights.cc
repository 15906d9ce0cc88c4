#include "model/weights.h"

#include <array>
#include <cmath>
#include <span>
#include <string>

#include "model/weight_names.h"

namespace fathom::model {

namespace {

using ops::Compute;
using ops::PackedLinear;
using weights::Part;

// Standard deviations of random weights, in units of 1 / sqrt(k). Projections within a block keep magnitude
// or sharpen (attention and routing must not be uniform); what returns to the residual stream is divided by
// the square root of the number of additions, so that activations stay near 1 through all layers and a
// token's own embedding keeps its say in the routing.
struct Gains {
  float inner = 1.5F;
  float query = 1.6F;
  float head = 3.0F;
  float residual = 1.0F;
};

class Loader {
 public:
  Loader(const ModelConfig& config, const WeightOptions& options, weights::WeightSupply& supply)
      : c_(config), options_(options), supply_(supply) {
    gains_.residual = 1.5F / std::sqrt(2.0F * static_cast<float>(config.num_layers));
  }

  Result<ModelWeights> load() {
    ModelWeights model;
    const std::string embedding = "model.embed_tokens.weight";
    FATHOM_ASSIGN(model.embedding, supply_.table(embedding, c_.vocab_size, c_.hidden_size, 1.0F));
    model.layers.resize(static_cast<size_t>(c_.num_layers));
    for (int64_t i = 0; i < c_.num_layers; ++i) {
      FATHOM_TRY(load_layer(i, model.layers[static_cast<size_t>(i)]));
    }
    FATHOM_ASSIGN(model.norm, norm("model.norm.weight", c_.hidden_size));
    Part head = part("lm_head.weight", c_.vocab_size, c_.hidden_size, gains_.head);
    if (c_.tie_word_embeddings) {
      head.name = embedding;
      head.gain = std::sqrt(static_cast<float>(c_.hidden_size));  // the table's deviation is 1
      head.shared = true;
    }
    FATHOM_ASSIGN(model.head, linear(options_.compute, {&head, 1}));
    return model;
  }

 private:
  static Part part(std::string name, int64_t n, int64_t k, float gain) {
    Part result;
    result.name = std::move(name);
    result.n = n;
    result.k = k;
    result.gain = gain;
    return result;
  }

  Result<const float*> norm(const std::string& name, int64_t count) {
    return supply_.vector(name, count, 1.0F, 0.1F);
  }

  Result<Linear> linear(Compute compute, std::span<const Part> parts) {
    Linear result;
    FATHOM_ASSIGN(result.weight, supply_.linear(compute, parts));
    result.run = ops::choose_linear(options_.target, result.weight.dtype, compute);
    return result;
  }

  Result<void> load_layer(int64_t index, LayerWeights& layer) {
    const std::string prefix = layer_prefix(index);
    FATHOM_ASSIGN(layer.input_norm, norm(prefix + "input_layernorm.weight", c_.hidden_size));
    FATHOM_TRY(load_attention(prefix + "self_attn.", layer.attention));
    FATHOM_ASSIGN(layer.attention_norm, norm(prefix + "post_attention_layernorm.weight", c_.hidden_size));
    layer.is_moe = c_.is_moe(index);
    if (layer.is_moe) return load_moe(prefix + "mlp.", layer.moe);
    return load_dense(prefix + "mlp.", c_.intermediate_size, layer.dense);
  }

  Result<void> load_attention(const std::string& prefix, MlaWeights& attention) {
    const int64_t queries = c_.num_heads * c_.query_dim();
    const bool q_lora = c_.q_lora_rank > 0;
    const std::array<Part, 2> input{
        q_lora ? part(prefix + "q_a_proj.weight", c_.q_lora_rank, c_.hidden_size, gains_.query)
               : part(prefix + "q_proj.weight", queries, c_.hidden_size, gains_.query),
        part(prefix + "kv_a_proj_with_mqa.weight", c_.latent_width(), c_.hidden_size, gains_.query)};
    FATHOM_ASSIGN(attention.qkv_a, linear(options_.compute, input));
    if (q_lora) {
      FATHOM_ASSIGN(attention.q_norm, norm(prefix + "q_a_layernorm.weight", c_.q_lora_rank));
      const Part q_b = part(prefix + "q_b_proj.weight", queries, c_.q_lora_rank, gains_.query);
      FATHOM_ASSIGN(attention.q_b, linear(options_.compute, {&q_b, 1}));
    }
    FATHOM_ASSIGN(attention.kv_norm, norm(prefix + "kv_a_layernorm.weight", c_.kv_lora_rank));
    const int64_t head_rows = c_.nope_dim + c_.value_dim;
    Part kv_b = part(prefix + "kv_b_proj.weight", c_.num_heads * head_rows, c_.kv_lora_rank, gains_.query);
    kv_b.shared = options_.mla;
    FATHOM_ASSIGN(attention.kv_b, linear(options_.compute, {&kv_b, 1}));
    if (options_.mla) FATHOM_TRY(load_absorbed(kv_b, attention));
    const Part out =
        part(prefix + "o_proj.weight", c_.hidden_size, c_.num_heads * c_.value_dim, gains_.residual);
    FATHOM_ASSIGN(attention.out, linear(options_.compute, {&out, 1}));
    return {};
  }

  // kv_b's rows of a head are Dn of keys, then Dv of values.
  Result<void> load_absorbed(const Part& kv_b, MlaWeights& attention) {
    Part rows = kv_b;
    for (int64_t head = 0; head < c_.num_heads; ++head) {
      rows.first_row = head * (c_.nope_dim + c_.value_dim);
      rows.rows = c_.nope_dim;
      rows.transposed = true;
      FATHOM_ASSIGN(auto key, supply_.linear(options_.compute, {&rows, 1}));
      attention.absorb_key.push_back(key);
      rows.first_row += c_.nope_dim;
      rows.rows = c_.value_dim;
      rows.transposed = false;
      FATHOM_ASSIGN(auto value, supply_.linear(options_.compute, {&rows, 1}));
      attention.absorb_value.push_back(value);
    }
    FATHOM_TRY(check_one_dtype(kv_b.name, attention.absorb_key));
    FATHOM_TRY(check_one_dtype(kv_b.name, attention.absorb_value));
    attention.run_absorb_key =
        ops::choose_batched_linear(options_.target, attention.absorb_key.front().dtype, options_.compute);
    attention.run_absorb_value =
        ops::choose_batched_linear(options_.target, attention.absorb_value.front().dtype, options_.compute);
    return {};
  }

  Result<void> load_dense(const std::string& prefix, int64_t inner, DenseWeights& dense) {
    FATHOM_ASSIGN(dense.gate_up, linear(options_.compute, gate_up(prefix, inner)));
    const Part down = part(prefix + "down_proj.weight", c_.hidden_size, inner, gains_.residual);
    FATHOM_ASSIGN(dense.down, linear(options_.compute, {&down, 1}));
    return {};
  }

  Result<void> load_moe(const std::string& prefix, MoeWeights& moe) {
    const Part gate = part(prefix + "gate.weight", c_.num_experts, c_.hidden_size, gains_.inner);
    FATHOM_ASSIGN(moe.gate, linear(Compute::kF32, {&gate, 1}));
    if (c_.gate.method == ops::GateParams::Method::kNoAuxTc) {
      FATHOM_ASSIGN(moe.bias,
                    supply_.vector(prefix + "gate.e_score_correction_bias", c_.num_experts, 0.0F, 0.05F));
    }
    if (c_.num_shared_experts > 0) {
      FATHOM_TRY(load_dense(prefix + "shared_experts.", c_.shared_size(), moe.shared));
    }
    for (int64_t expert = 0; expert < c_.num_experts; ++expert) {
      const std::string name = prefix + "experts." + std::to_string(expert) + ".";
      FATHOM_ASSIGN(auto up, supply_.linear(options_.compute, gate_up(name, c_.moe_intermediate_size)));
      moe.gate_up.push_back(up);
      const Part down =
          part(name + "down_proj.weight", c_.hidden_size, c_.moe_intermediate_size, expert_gain());
      FATHOM_ASSIGN(auto packed, supply_.linear(options_.compute, {&down, 1}));
      moe.down.push_back(packed);
    }
    FATHOM_TRY(check_one_dtype(prefix + "experts", moe.gate_up));
    FATHOM_TRY(check_one_dtype(prefix + "experts", moe.down));
    if (moe.gate_up.front().dtype != moe.down.front().dtype) return mixed(prefix + "experts");
    moe.run = ops::choose_moe(options_.target, moe.down.front().dtype, options_.compute);
    return {};
  }

  std::array<Part, 2> gate_up(const std::string& prefix, int64_t inner) const {
    return {part(prefix + "gate_proj.weight", inner, c_.hidden_size, gains_.inner),
            part(prefix + "up_proj.weight", inner, c_.hidden_size, gains_.inner)};
  }

  // Where the routing weights are not normalised, a softmax over E of logits with deviation 1.5 gives its
  // best K about 0.4 in all: the scaling factor of such a model makes up for it.
  float expert_gain() const {
    const float total = c_.gate.normalise ? c_.gate.scaling : 0.4F * c_.gate.scaling;
    return gains_.residual / std::max(1.0F, total);
  }

  static Error mixed(const std::string& name) {
    return error(ErrorCode::kUnsupported, "{}: weights of different types in one group are not supported",
                 name);
  }
  static Result<void> check_one_dtype(const std::string& name, std::span<const PackedLinear> group) {
    for (const auto& item : group) {
      if (item.dtype != group.front().dtype) return mixed(name);
    }
    return {};
  }

  const ModelConfig& c_;
  const WeightOptions& options_;
  weights::WeightSupply& supply_;
  Gains gains_;
};

}  // namespace

Result<ModelWeights> load_weights(const ModelConfig& config, const WeightOptions& options,
                                  weights::WeightSupply& supply) {
  return Loader(config, options, supply).load();
}

}  // namespace fathom::model

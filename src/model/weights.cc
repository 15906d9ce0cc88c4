#include "model/weights.h"

#include <span>
#include <string>

#include "model/weight_names.h"
#include "model/weight_parts.h"

namespace fathom::model {

namespace {

using ops::Compute;
using ops::PackedLinear;
using weights::Part;

class Loader {
 public:
  Loader(const ModelConfig& config, const WeightOptions& options, weights::WeightSupply& supply)
      : c_(config), parts_(config, options.shard), options_(options), supply_(supply) {}

  Result<ModelWeights> load() {
    ModelWeights model;
    const Shard& shard = options_.shard;
    if (has_part_of(c_, shard, parts_.embedding().name)) {
      FATHOM_ASSIGN(model.embedding, supply_.table(parts_.embedding()));
    }
    model.layers.resize(static_cast<size_t>(shard.layers.count));
    for (int64_t i = 0; i < shard.layers.count; ++i) {
      FATHOM_TRY(load_layer(shard.layers.first + i, model.layers[static_cast<size_t>(i)]));
    }
    if (!shard.last_stage()) return model;
    if (c_.draft_layers > 0) FATHOM_TRY(load_draft(model.draft));
    FATHOM_ASSIGN(model.norm, norm("model.norm.weight", c_.hidden_size));
    FATHOM_ASSIGN(model.head, linear(options_.compute, parts_.head()));
    return model;
  }

 private:
  Result<const float*> norm(const std::string& name, int64_t count) {
    return supply_.vector(name, count, 1.0F, 0.1F);
  }

  // For what makes queries and latents. Their rounding passes through the softmax's exponential: it is most
  // of what bf16 activations cost (ops/linear/README.md).
  Compute attention_input() const {
    return options_.compute == Compute::kBF16 ? Compute::kBF16Weights : options_.compute;
  }

  Result<Linear> linear(Compute compute, std::span<const Part> parts) {
    Linear result;
    FATHOM_ASSIGN(result.weight, supply_.linear(compute, parts));
    result.run = ops::choose_linear(options_.target, result.weight.dtype, compute);
    return result;
  }
  Result<Linear> linear(Compute compute, const Part& part) {
    return linear(compute, std::span<const Part>(&part, 1));
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

  Result<void> load_draft(DraftWeights& draft) {
    const std::string prefix = layer_prefix(c_.num_layers);
    FATHOM_ASSIGN(draft.token_norm, norm(prefix + "enorm.weight", c_.hidden_size));
    FATHOM_ASSIGN(draft.hidden_norm, norm(prefix + "hnorm.weight", c_.hidden_size));
    FATHOM_ASSIGN(draft.merge, linear(options_.compute, parts_.merge(prefix)));
    FATHOM_TRY(load_layer(c_.num_layers, draft.layer));
    FATHOM_ASSIGN(draft.norm, norm(prefix + "shared_head.norm.weight", c_.hidden_size));
    return {};
  }

  Result<void> load_attention(const std::string& prefix, MlaWeights& attention) {
    FATHOM_ASSIGN(attention.qkv_a, linear(attention_input(), parts_.qkv_a(prefix)));
    if (c_.q_lora_rank > 0) {
      FATHOM_ASSIGN(attention.q_norm, norm(prefix + "q_a_layernorm.weight", c_.q_lora_rank));
      FATHOM_ASSIGN(attention.q_b, linear(attention_input(), parts_.q_b(prefix)));
    }
    FATHOM_ASSIGN(attention.kv_norm, norm(prefix + "kv_a_layernorm.weight", c_.kv_lora_rank));
    Part kv_b = parts_.kv_b(prefix);
    kv_b.shared = options_.mla;
    FATHOM_ASSIGN(attention.kv_b, linear(options_.compute, kv_b));
    if (options_.mla) FATHOM_TRY(load_absorbed(prefix, attention));
    FATHOM_ASSIGN(attention.out, linear(options_.compute, parts_.out(prefix)));
    return {};
  }

  Result<void> load_absorbed(const std::string& prefix, MlaWeights& attention) {
    const Range& heads = options_.shard.heads;
    for (int64_t head = heads.first; head < heads.end(); ++head) {
      const Part key_rows = parts_.absorb_key(prefix, head);
      FATHOM_ASSIGN(auto key, supply_.linear(options_.compute, {&key_rows, 1}));
      attention.absorb_key.push_back(key);
      const Part value_rows = parts_.absorb_value(prefix, head);
      FATHOM_ASSIGN(auto value, supply_.linear(options_.compute, {&value_rows, 1}));
      attention.absorb_value.push_back(value);
    }
    FATHOM_TRY(check_one_dtype(prefix + "kv_b_proj", attention.absorb_key));
    FATHOM_TRY(check_one_dtype(prefix + "kv_b_proj", attention.absorb_value));
    attention.run_absorb_key =
        ops::choose_batched_linear(options_.target, attention.absorb_key.front().dtype, options_.compute);
    attention.run_absorb_value =
        ops::choose_batched_linear(options_.target, attention.absorb_value.front().dtype, options_.compute);
    return {};
  }

  Result<void> load_dense(const std::string& prefix, int64_t inner, DenseWeights& dense) {
    FATHOM_ASSIGN(dense.gate_up, linear(options_.compute, parts_.gate_up(prefix, inner)));
    FATHOM_ASSIGN(dense.down, linear(options_.compute, parts_.down(prefix, inner)));
    return {};
  }

  Result<void> load_moe(const std::string& prefix, MoeWeights& moe) {
    FATHOM_ASSIGN(moe.gate, linear(Compute::kF32, parts_.gate(prefix)));
    if (c_.gate.method == ops::GateParams::Method::kNoAuxTc) {
      FATHOM_ASSIGN(moe.bias,
                    supply_.vector(prefix + "gate.e_score_correction_bias", c_.num_experts, 0.0F, 0.05F));
    }
    if (c_.num_shared_experts > 0) {
      FATHOM_TRY(load_dense(prefix + "shared_experts.", c_.shared_size(), moe.shared));
    }
    const std::vector<int32_t>& experts = options_.shard.experts;
    const Split& split = options_.shard.split;
    if (split.ep > 1) {
      moe.placement = first_placement(c_.num_experts, split.redundant, split.ep);
      moe.slots = slots_of(moe.placement, options_.shard.place.set, c_.num_experts);
      moe.load.assign(static_cast<size_t>(c_.num_experts), 0);
    }
    for (const int32_t expert : experts) {
      FATHOM_ASSIGN(auto up, supply_.linear(options_.compute, parts_.expert_gate_up(prefix, expert)));
      moe.gate_up.push_back(up);
      const Part down = parts_.expert_down(prefix, expert);
      FATHOM_ASSIGN(auto packed, supply_.linear(options_.compute, {&down, 1}));
      moe.down.push_back(packed);
    }
    FATHOM_TRY(check_one_dtype(prefix + "experts", moe.gate_up));
    FATHOM_TRY(check_one_dtype(prefix + "experts", moe.down));
    if (moe.gate_up.front().dtype != moe.down.front().dtype) return mixed(prefix + "experts");
    moe.run = ops::choose_moe(options_.target, moe.down.front().dtype, options_.compute);
    return {};
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
  WeightParts parts_;
  const WeightOptions& options_;
  weights::WeightSupply& supply_;
};

}  // namespace

Result<ModelWeights> load_weights(const ModelConfig& config, const WeightOptions& options,
                                  weights::WeightSupply& supply) {
  return Loader(config, options, supply).load();
}

}  // namespace fathom::model

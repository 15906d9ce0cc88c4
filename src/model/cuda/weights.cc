#include "model/cuda/weights.h"

#include "model/memory.h"
#include "model/weight_names.h"
#include "model/weight_parts.h"

namespace fathom::model::cuda {
namespace {

using ops::Compute;
using weights::Part;
using Group = std::vector<Part>;

class Loader {
 public:
  Loader(const ModelConfig& config, const Shard& shard, const WeightOptions& options,
         weights::cuda::DeviceSupply& supply)
      : c_(config),
        shard_(shard),
        parts_(config, shard),
        compute_(options.compute),
        mla_(options.mla),
        fp8_x_(options.fp8_x),
        places_(options.moves_experts || shard.split.redundant > 0),
        supply_(supply) {}

  Result<ModelWeights> load() {
    ModelWeights model;
    if (has_part_of(c_, shard_, parts_.embedding().name)) {
      FATHOM_ASSIGN(model.embedding, supply_.table(parts_.embedding()));
    }
    model.layers.resize(static_cast<size_t>(shard_.layers.count));
    for (int64_t i = 0; i < shard_.layers.count; ++i) {
      FATHOM_TRY(load_layer(shard_.layers.first + i, model.layers[static_cast<size_t>(i)]));
    }
    if (!shard_.last_stage()) return model;
    if (c_.draft_layers > 0) FATHOM_TRY(load_draft(model.draft));
    FATHOM_ASSIGN(model.norm, norm("model.norm.weight", c_.hidden_size));
    FATHOM_ASSIGN(model.head, linear(parts_.head()));
    if (c_.draft_layers == 0) return model;
    Weight head = model.head;
    if (c_.draft_vocab > 0) {
      if (head.dtype == device::DType::kF8E4M3) {
        return error(ErrorCode::kUnsupported,
                     "--speculative-draft-vocab: the checkpoint's head is FP8, of which no part is taken; "
                     "leave it out");
      }
      head.n = c_.draft_vocab;
    }
    FATHOM_ASSIGN(model.draft.head, copy_for_draft(head));
    return model;
  }

 private:
  // What the draft layer reads in place of `weight`.
  Result<Weight> copy_for_draft(const Weight& weight) {
    if (!copies_for_draft(compute_, weight.dtype, weight.n, weight.k)) return weight;
    return supply_.fp8_copy(weight);
  }
  Result<const float*> norm(const std::string& name, int64_t count) {
    return supply_.vector(name, count, 1.0F, 0.1F);
  }

  Result<Weight> linear(Group parts, bool turns = false) {
    return supply_.linear(compute_, std::span<const Group>(&parts, 1), turns);
  }
  Result<Weight> linear(const Part& part) { return linear(Group{part}); }
  // For activations that the layer rounds.
  Result<Weight> projection(Group parts, bool turns = false) {
    return supply_.linear(compute_, std::span<const Group>(&parts, 1), turns, fp8_x_);
  }
  Result<Weight> projection(const Part& part) { return projection(Group{part}); }

  Result<void> load_layer(int64_t index, LayerWeights& layer) {
    const std::string prefix = layer_prefix(index);
    FATHOM_ASSIGN(layer.input_norm, norm(prefix + "input_layernorm.weight", c_.hidden_size));
    FATHOM_TRY(load_attention(prefix + "self_attn.", layer.attention));
    FATHOM_ASSIGN(layer.attention_norm, norm(prefix + "post_attention_layernorm.weight", c_.hidden_size));
    layer.is_moe = c_.is_moe(index);
    if (layer.is_moe) return load_moe(prefix + "mlp.", layer.moe);
    FATHOM_TRY(load_dense(prefix + "mlp.", c_.intermediate_size, layer.dense));
    layer.dense.down.parted = layer.dense.down.pays_in_parts();
    return {};
  }

  Result<void> load_draft(DraftWeights& draft) {
    const std::string prefix = layer_prefix(c_.num_layers);
    FATHOM_ASSIGN(draft.token_norm, norm(prefix + "enorm.weight", c_.hidden_size));
    FATHOM_ASSIGN(draft.hidden_norm, norm(prefix + "hnorm.weight", c_.hidden_size));
    FATHOM_ASSIGN(draft.merge, linear(parts_.merge(prefix)));
    FATHOM_ASSIGN(draft.merge, copy_for_draft(draft.merge));
    FATHOM_TRY(load_layer(c_.num_layers, draft.layer));
    FATHOM_ASSIGN(draft.norm, norm(prefix + "shared_head.norm.weight", c_.hidden_size));
    return {};
  }

  Result<void> load_attention(const std::string& prefix, MlaWeights& attention) {
    FATHOM_ASSIGN(attention.qkv_a, projection(parts_.qkv_a(prefix)));
    if (c_.q_lora_rank > 0) {
      FATHOM_ASSIGN(attention.q_norm, norm(prefix + "q_a_layernorm.weight", c_.q_lora_rank));
      FATHOM_ASSIGN(attention.q_b, projection(parts_.q_b(prefix)));
    }
    FATHOM_ASSIGN(attention.kv_norm, norm(prefix + "kv_a_layernorm.weight", c_.kv_lora_rank));
    FATHOM_ASSIGN(attention.kv_b, linear(parts_.kv_b(prefix)));
    if (mla_) {
      const int64_t step = c_.nope_dim + c_.value_dim;
      const Range& heads = shard_.heads;
      FATHOM_ASSIGN(attention.absorb_key,
                    supply_.heads(compute_, parts_.absorb_key(prefix, heads.first), heads.count, step));
      FATHOM_ASSIGN(attention.absorb_value,
                    supply_.heads(compute_, parts_.absorb_value(prefix, heads.first), heads.count, step));
    }
    FATHOM_ASSIGN(attention.out, projection(parts_.out(prefix)));
    attention.qkv_a.parted = attention.qkv_a.pays_in_parts();
    attention.out.parted = attention.out.pays_in_parts();
    return {};
  }

  Result<void> load_dense(const std::string& prefix, int64_t inner, DenseWeights& dense) {
    FATHOM_ASSIGN(dense.gate_up, projection(parts_.gate_up(prefix, inner), true));
    FATHOM_ASSIGN(dense.down, projection(parts_.down(prefix, inner)));
    return {};
  }

  Result<void> load_moe(const std::string& prefix, MoeWeights& moe) {
    const Group gate{parts_.gate(prefix)};
    FATHOM_ASSIGN(moe.gate, supply_.linear(Compute::kF32, std::span<const Group>(&gate, 1)));
    moe.gate.parted = moe.gate.pays_in_parts();
    if (c_.gate.method == ops::GateParams::Method::kNoAuxTc) {
      FATHOM_ASSIGN(moe.bias,
                    supply_.vector(prefix + "gate.e_score_correction_bias", c_.num_experts, 0.0F, 0.05F));
    }
    if (c_.num_shared_experts > 0)
      FATHOM_TRY(load_dense(prefix + "shared_experts.", c_.shared_size(), moe.shared));
    std::vector<Group> up;
    std::vector<Group> down;
    const std::vector<int32_t>& experts = shard_.experts;
    if (places_) {
      FATHOM_TRY(place_experts(moe));
    } else if (static_cast<int64_t>(experts.size()) < c_.num_experts) {
      std::vector<int32_t> slots(static_cast<size_t>(c_.num_experts), -1);
      for (size_t slot = 0; slot < experts.size(); ++slot)
        slots[static_cast<size_t>(experts[slot])] = static_cast<int32_t>(slot);
      FATHOM_ASSIGN(moe.slots, supply_.upload(slots));
    }
    for (const int32_t expert : experts) {
      up.push_back(parts_.expert_gate_up(prefix, expert));
      down.push_back({parts_.expert_down(prefix, expert)});
    }
    FATHOM_ASSIGN(moe.experts.gate_up, supply_.linear(compute_, up, true, fp8_x_));
    FATHOM_ASSIGN(moe.experts.down, supply_.linear(compute_, down, false, fp8_x_));
    return {};
  }

  Result<void> place_experts(MoeWeights& moe) {
    const auto experts = static_cast<size_t>(c_.num_experts);
    moe.placement = first_placement(c_.num_experts, shard_.split.redundant, shard_.split.ep);
    moe.load.assign(experts, 0);
    const ExpertSlots slots = slots_of(moe.placement, shard_.place.set, c_.num_experts);
    // The arena's: they change when experts move.
    const auto upload = [&](std::span<const int32_t> numbers) -> Result<int32_t*> {
      FATHOM_ASSIGN(const int32_t* data, supply_.upload(numbers));
      return const_cast<int32_t*>(data);
    };
    FATHOM_ASSIGN(moe.places.first, upload(slots.first));
    FATHOM_ASSIGN(moe.places.slots, upload(slots.slots));
    FATHOM_ASSIGN(int32_t * load, upload(std::vector<int32_t>(2 * experts, 0)));
    moe.places.load = reinterpret_cast<unsigned long long*>(load);
    return {};
  }

  const ModelConfig& c_;
  const Shard& shard_;
  WeightParts parts_;
  Compute compute_;
  bool mla_, fp8_x_, places_;
  weights::cuda::DeviceSupply& supply_;
};

}  // namespace

Result<ModelWeights> load_weights(const ModelConfig& config, const Shard& shard, const WeightOptions& options,
                                  weights::cuda::DeviceSupply& supply) {
  return Loader(config, shard, options, supply).load();
}

}  // namespace fathom::model::cuda

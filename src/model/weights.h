// A model's weights, or a rank's shard of them, packed and fused for the ops. Everything lies in the arena
// that load_weights was given. Nh, I, V below are the shard's.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "device/arena.h"
#include "device/launch.h"
#include "device/tensor.h"
#include "model/config.h"
#include "model/expert_placement.h"
#include "model/shard.h"
#include "ops/linear/linear.h"
#include "ops/moe/moe.h"
#include "weights/weight_supply.h"

namespace fathom::model {

// A packed weight and what multiplies by it.
struct Linear {
  ops::PackedLinear weight;
  ops::LinearFunction run = nullptr;

  // y = x W^T (+ y)
  void operator()(device::Launch& launch, const device::Tensor& x, const device::Tensor& y,
                  bool accumulate = false) const {
    run(launch, {.x = x, .y = y, .weight = &weight, .accumulate = accumulate});
  }
};

struct MlaWeights {
  // What is projected from the layer's input, stacked: [q_lora_rank, or Nh (Dn + Dr) without q_lora] of
  // queries, then Dc + Dr of the latent: x [., H].
  Linear qkv_a;
  const float* q_norm = nullptr;   // [q_lora_rank]
  Linear q_b;                      // [Nh (Dn + Dr), q_lora_rank]; empty without q_lora
  const float* kv_norm = nullptr;  // [Dc]
  Linear kv_b;                     // [Nh (Dn + Dv), Dc], for un-absorbed attention
  // For absorbed attention; empty without MLA.
  std::vector<ops::PackedLinear> absorb_key;    // [Nh] of [Dc, Dn]: w_kc
  std::vector<ops::PackedLinear> absorb_value;  // [Nh] of [Dv, Dc]: w_vc
  ops::BatchedLinearFunction run_absorb_key = nullptr, run_absorb_value = nullptr;
  Linear out;  // [H, Nh Dv]
};

// down(silu(gate) * up)
struct DenseWeights {
  Linear gate_up;  // [2 I, H]
  Linear down;     // [H, I]
};

struct MoeWeights {
  Linear gate;                  // [E, H], computed in float32 so that routing does not depend on --dtype
  const float* bias = nullptr;  // [E] e_score_correction_bias, or none
  std::vector<ops::PackedLinear> gate_up;  // [rank's experts] of [2 I, H]
  std::vector<ops::PackedLinear> down;     // [rank's experts] of [H, I]
  // Where routed experts are spread over ranks; empty where every rank has all.
  ExpertPlacement placement;
  ExpertSlots slots;          // of this rank
  std::vector<int64_t> load;  // [E] tokens that chose each, of all groups; older ones count less
  ops::MoeFunction run = nullptr;
  DenseWeights shared;  // empty without shared experts
};

struct LayerWeights {
  const float* input_norm = nullptr;  // [H]
  MlaWeights attention;
  const float* attention_norm = nullptr;  // [H] post_attention_layernorm
  bool is_moe = false;
  DenseWeights dense;
  MoeWeights moe;
};

// A layer that predicts the token after the next (DeepSeek-V3, arXiv:2412.19437, section 2.2). Embedding and
// head are the model's.
struct DraftWeights {
  const float* token_norm = nullptr;   // [H] enorm
  const float* hidden_norm = nullptr;  // [H] hnorm
  Linear merge;                        // [H, 2 H] eh_proj
  LayerWeights layer;
  const float* norm = nullptr;  // [H] shared_head.norm
};

struct ModelWeights {
  device::Tensor embedding;  // [V, H], as the checkpoint has it; of the first stage, and where it drafts
  std::vector<LayerWeights> layers;  // the shard's
  // Of the last stage.
  const float* norm = nullptr;  // [H]
  Linear head;                  // [V, H]
  DraftWeights draft;           // empty where the config has no draft_layers
};

struct WeightOptions {
  device::Target target;
  ops::Compute compute = ops::Compute::kBF16;
  bool mla = true;
  Shard shard;
};

Result<ModelWeights> load_weights(const ModelConfig& config, const WeightOptions& options,
                                  weights::WeightSupply& supply);

}  // namespace fathom::model

// A rank's weights on the GPU, fused for its ops: Nh, I and E are the rank's own heads, inner columns and
// experts (model/shard.h), V is its part of the vocabulary. Everything lies in the arena that load_weights
// was given.
#pragma once

#include <vector>

#include "base/result.h"
#include "model/config.h"
#include "model/cuda/expert_places.h"
#include "model/expert_placement.h"
#include "model/shard.h"
#include "ops/linear/cuda.h"
#include "weights/cuda/device_supply.h"

namespace fathom::model::cuda {

using ops::cuda::Weight;

struct MlaWeights {
  Weight qkv_a;                    // [q_lora_rank (or Nh (Dn + Dr)) + Dc + Dr, H]
  const float* q_norm = nullptr;   // [q_lora_rank]
  Weight q_b;                      // [Nh (Dn + Dr), q_lora_rank]; empty without q_lora
  const float* kv_norm = nullptr;  // [Dc]
  Weight kv_b;                     // [Nh (Dn + Dv), Dc], for un-absorbed attention
  Weight absorb_key;               // Nh of [Dc, Dn]: w_kc; empty without MLA
  Weight absorb_value;             // Nh of [Dv, Dc]: w_vc
  Weight out;                      // [H, Nh Dv]
};

// down(silu(gate) * up); gate and up take turns of eight rows.
struct DenseWeights {
  Weight gate_up;  // [2 I, H]
  Weight down;     // [H, I]
};

struct MoeWeights {
  Weight gate;                  // [all E, H]; as it is stored, or float32
  const float* bias = nullptr;  // [all E], or none
  // [all E] the expert's group on this rank, or -1: others have it. Null: every expert is here.
  const int32_t* slots = nullptr;
  // Where experts may have several places, or move: instead of `slots`. And on the host, which places those
  // are, and how many tokens each expert was given since the last balancing, less what is forgotten.
  ExpertPlaces places;
  ExpertPlacement placement;
  std::vector<int64_t> load;
  DenseWeights experts;  // a group for each of the rank's experts
  DenseWeights shared;   // empty without shared experts
};

struct LayerWeights {
  const float* input_norm = nullptr;  // [H]
  MlaWeights attention;
  const float* attention_norm = nullptr;  // [H]
  bool is_moe = false;
  DenseWeights dense;
  MoeWeights moe;
};

// A layer that predicts the token after the next; model/weights.h says more.
struct DraftWeights {
  const float* token_norm = nullptr;   // [H]
  const float* hidden_norm = nullptr;  // [H]
  // This and the head are FP8 copies where they are large and bfloat16: a guess need not have the model's
  // bits, and each takes a reading of them.
  Weight merge;  // [H, 2 H]
  LayerWeights layer;
  const float* norm = nullptr;  // [H]
  Weight head;                  // the model's [V, H], or its first ModelConfig::draft_vocab rows
};

struct ModelWeights {
  weights::cuda::Table embedding;  // [V, H]
  std::vector<LayerWeights> layers;
  const float* norm = nullptr;  // [H]
  Weight head;                  // [V, H]
  DraftWeights draft;           // empty where the config has no draft_layers
};

struct WeightOptions {
  ops::Compute compute = ops::Compute::kBF16;
  bool mla = true;
  // The layers' FP8 projections take FP8 activations (Weight::fp8_x); not kv_b, which is multiplied head by
  // head in decode, nor the draft layer's merge and the head.
  bool fp8_x = false;
  bool moves_experts = false;  // experts are going to move between ranks
};
Result<ModelWeights> load_weights(const ModelConfig& config, const Shard& shard, const WeightOptions& options,
                                  weights::cuda::DeviceSupply& supply);

}  // namespace fathom::model::cuda

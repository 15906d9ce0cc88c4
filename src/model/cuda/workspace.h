// The activations of one forward pass on the GPU, allocated once for the largest batch. The activations'
// dtype A is BF16, or F32 in --dtype float32; the residual stream and the logits are F32. Nh and I are the
// rank's own heads and inner columns; V is the whole vocabulary.
#pragma once

#include "base/result.h"
#include "device/cuda/memory.h"
#include "model/config.h"
#include "model/shard.h"
#include "ops/cuda_batch.h"
#include "ops/moe/cuda.h"

namespace fathom::model::cuda {

struct WorkspaceShape {
  Shard shard;
  int64_t tokens = 0;         // most tokens of a forward
  int64_t decode_tokens = 0;  // most output tokens of one piece of absorbed attention
  int64_t logit_rows = 0;     // most rows of logits
  int64_t pass_keys = 0;      // most keys of one pass of un-absorbed attention
  int64_t max_context = 0;
  int64_t kept_states = 0;  // rows of Workspace::states between steps
  bool mla = true;
  device::DType activations = device::DType::kBF16;
  bool fp8_x = false;  // FP8 projections take activations rounded to FP8
};

struct Workspace {
  using Matrix = ops::cuda::Matrix;
  using Rounded = ops::cuda::QuantizedMatrix;
  float* residual = nullptr;  // [T, H]
  Matrix normed;              // [T, H] A
  Matrix delta;               // [T, H] F32: what a block adds to the residual stream
  Matrix qkv;                 // [T, q_lora (or Nh (Dn + Dr)) + Dc + Dr] A
  Matrix q_latent;            // [T, q_lora] A; empty without q_lora
  Matrix q;                   // [T, Nh (Dn + Dr)] A; empty without q_lora (qkv holds the queries)
  Matrix attention;           // [T, Nh Dv] A
  Matrix absorbed_q;          // [decode_tokens, Nh (Dc + Dr)] A
  Matrix latent_out;          // [decode_tokens, Nh Dc] A
  void* decode_scratch = nullptr;
  Matrix pass_latent;        // [pass_keys, Dc] A
  Matrix pass_rope;          // [pass_keys, Dr] A
  Matrix pass_kv;            // [pass_keys, Nh (Dn + Dv)] A
  float* partial = nullptr;  // [T, Nh, Dv]: of rows that take several passes
  float* lse = nullptr;      // [T, Nh]
  Matrix kv_latent;          // [T, Dc + Dr] A; plain cache
  Matrix kv;                 // [T, Nh (Dn + Dv)] A; plain cache
  // With groups of requests, of the tokens of all groups; the experts' arrays below are then of so many.
  Matrix all_normed;                 // [dp T, H] A
  Matrix all_delta;                  // [dp T, H] F32
  int32_t* all_positions = nullptr;  // [dp T]
  float* gate_logits = nullptr;      // [T, E]
  uint64_t* gate_scratch = nullptr;  // gate_product_workspace() bytes; all 0xff before the first step
  int32_t* expert_ids = nullptr;     // [T, K]
  float* expert_weights = nullptr;   // [T, K]
  ops::cuda::ExpertSort sort;
  int32_t* sort_scratch = nullptr;
  Matrix expert_in;     // [T K, H] A: tokens in the experts' order, for many of them
  Matrix expert_inner;  // [T K + kMostBesideRows, I] A: the shared experts' rows may follow
  Matrix expert_out;    // [T K, H] A
  Matrix inner;         // [T, widest of the dense and shared MLPs] A
  Matrix shared_out;    // [T, H] A
  Matrix logit_hidden;  // [R, H] A
  // [T + kept_states + T, H] A, after a final norm: the last forward's, those kept of earlier ones, and the
  // last draft's. Only the first part without a draft layer.
  Matrix states;
  Matrix hidden;            // [T, H] the first part
  Matrix draft_hidden;      // [T, H] the last part
  Matrix draft_pair;        // [T, 2 H] A: what the draft layer merges
  float* logits = nullptr;  // [R, V]
  // With FP8 activations: the same in FP8. Of all groups' tokens, where there are groups: rounded_all.
  Rounded rounded_normed;        // [T, H]
  Rounded rounded_q_latent;      // [T, q_lora]
  Rounded rounded_attention;     // [T, Nh Dv]
  Rounded rounded_inner;         // [T, widest of the dense and shared MLPs]
  Rounded rounded_all;           // [dp T, H]
  Rounded rounded_expert_in;     // [T K, H]
  Rounded rounded_expert_inner;  // [T K + kMostBesideRows, I]
};

Result<Workspace> allocate_workspace(const ModelConfig& config, const WorkspaceShape& shape,
                                     const device::cuda::Gpu& gpu, device::cuda::DeviceArena& arena);

// What allocate_workspace takes.
int64_t workspace_bytes(const ModelConfig& config, const WorkspaceShape& shape, const device::cuda::Gpu& gpu);

}  // namespace fathom::model::cuda

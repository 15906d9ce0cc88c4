// The activations of one forward pass, allocated once for the largest batch. All f32 unless said otherwise.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "device/arena.h"
#include "device/tensor.h"
#include "model/config.h"
#include "model/shard.h"

namespace fathom::model {

// Nh, I and V are the shard's, but for the logits'.
struct WorkspaceShape {
  int64_t tokens = 0;      // most tokens of a forward
  int64_t logit_rows = 0;  // most rows of logits
  bool mla = true;
  Shard shard;
};

struct Workspace {
  device::Tensor residual;   // [T, H] the residual stream
  device::Tensor normed;     // [T, H]
  device::Tensor delta;      // [T, H] what a block adds to the residual stream
  device::Tensor hidden;     // [T, H] after the final norm
  device::Tensor qkv;        // [T, q_lora (or Nh (Dn + Dr)) + Dc + Dr]
  device::Tensor q_latent;   // [T, q_lora]; empty without q_lora
  device::Tensor q;          // [T, Nh (Dn + Dr)]; empty without q_lora (qkv holds the queries)
  device::Tensor attention;  // [T, Nh Dv]
  // Output tokens go through absorbed attention in pieces of kDecodeTokens: their heads are Dc + Dr wide.
  device::Tensor absorbed_q;  // [min(T, kDecodeTokens), Nh (Dc + Dr)]; MLA
  device::Tensor latent_out;  // [min(T, kDecodeTokens), Nh Dc]; MLA
  device::Tensor kv_latent;   // [T, Dc]; plain cache
  device::Tensor kv;          // [T, Nh (Dn + Dv)]; plain cache
  // Where ranks have several groups of requests, experts see the tokens of all: Ta = groups * T.
  device::Tensor all_normed;      // [Ta, H]; empty with one group
  device::Tensor all_delta;       // [Ta, H]; empty with one group
  device::Tensor gate_logits;     // [Ta, E]
  device::Tensor expert_ids;      // [Ta, K] i32
  device::Tensor expert_weights;  // [Ta, K]
  // Dense and shared MLPs go through in pieces of kMlpTokens: their width would dominate the workspace.
  device::Tensor mlp_gate_up;  // [min(Ta, kMlpTokens), 2 I]
  device::Tensor mlp_inner;    // [min(Ta, kMlpTokens), I]
  // Empty without a draft layer.
  device::Tensor draft_pair;    // [T, 2 H] normalised: a token's embedding, and the hidden state before it
  device::Tensor draft_hidden;  // [T, H] after the draft layer's norm
  device::Tensor logit_hidden;  // [R, H]
  device::Tensor logits;        // [R, V] of the whole model
  // Empty where the rank has the whole vocabulary.
  device::Tensor shard_logits;  // [R, V]
  device::Tensor rank_logits;   // [R V of the whole model] every rank's shard_logits, one after another

  static constexpr int64_t kMlpTokens = 1024;
  static constexpr int64_t kDecodeTokens = 256;
};

Result<Workspace> allocate_workspace(const ModelConfig& config, const WorkspaceShape& shape,
                                     device::Arena& arena);
// What allocate_workspace takes.
int64_t workspace_bytes(const ModelConfig& config, const WorkspaceShape& shape);

}  // namespace fathom::model

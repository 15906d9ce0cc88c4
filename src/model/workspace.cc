#include "model/workspace.h"

#include <algorithm>
#include <functional>

#include "base/math.h"

namespace fathom::model {

namespace {

using device::DType;
using device::Tensor;

// Visits every tensor of the workspace with its size; both functions below are made of it.
void visit(const ModelConfig& c, const WorkspaceShape& shape, Workspace& w,
           const std::function<void(Tensor&, DType, int64_t, int64_t)>& take) {
  const int64_t t = shape.tokens;
  const int64_t heads = shape.shard.heads.count;
  const int64_t queries = heads * c.query_dim();
  const bool q_lora = c.q_lora_rank > 0;
  for (Tensor* tensor : {&w.residual, &w.normed, &w.delta, &w.hidden}) {
    take(*tensor, DType::kF32, t, c.hidden_size);
  }
  take(w.qkv, DType::kF32, t, (q_lora ? c.q_lora_rank : queries) + c.latent_width());
  if (q_lora) {
    take(w.q_latent, DType::kF32, t, c.q_lora_rank);
    take(w.q, DType::kF32, t, queries);
  }
  take(w.attention, DType::kF32, t, heads * c.value_dim);
  if (shape.mla) {
    take(w.absorbed_q, DType::kF32, std::min(t, Workspace::kDecodeTokens), heads * c.latent_width());
    take(w.latent_out, DType::kF32, std::min(t, Workspace::kDecodeTokens), heads * c.kv_lora_rank);
  } else {
    take(w.kv_latent, DType::kF32, t, c.kv_lora_rank);
    take(w.kv, DType::kF32, t, heads * (c.nope_dim + c.value_dim));
  }
  bool any_dense = c.num_shared_experts > 0 && c.num_experts > 0;
  bool any_moe = false;
  int64_t widest = any_dense ? shape.shard.shared.count : 0;
  for (int64_t layer = 0; layer < c.num_layers + c.draft_layers; ++layer) {
    any_moe = any_moe || c.is_moe(layer);
    if (!c.is_moe(layer)) widest = std::max(widest, shape.shard.dense.count);
  }
  const int64_t all = t * shape.shard.split.dp;
  if (any_moe) {
    if (all > t) {
      take(w.all_normed, DType::kF32, all, c.hidden_size);
      take(w.all_delta, DType::kF32, all, c.hidden_size);
    }
    take(w.gate_logits, DType::kF32, all, c.num_experts);
    take(w.expert_ids, DType::kI32, all, c.gate.top_k);
    take(w.expert_weights, DType::kF32, all, c.gate.top_k);
  }
  if (widest > 0) {
    take(w.mlp_gate_up, DType::kF32, std::min(all, Workspace::kMlpTokens), 2 * widest);
    take(w.mlp_inner, DType::kF32, std::min(all, Workspace::kMlpTokens), widest);
  }
  if (c.draft_layers > 0) {
    take(w.draft_pair, DType::kF32, t, 2 * c.hidden_size);
    take(w.draft_hidden, DType::kF32, t, c.hidden_size);
  }
  take(w.logit_hidden, DType::kF32, shape.logit_rows, c.hidden_size);
  take(w.logits, DType::kF32, shape.logit_rows, c.vocab_size);
  if (shape.shard.split.attention_ranks() > 1) {
    take(w.shard_logits, DType::kF32, shape.logit_rows, shape.shard.vocab.count);
    take(w.rank_logits, DType::kF32, 1, shape.logit_rows * c.vocab_size);
  }
}

}  // namespace

Result<Workspace> allocate_workspace(const ModelConfig& config, const WorkspaceShape& shape,
                                     device::Arena& arena) {
  Workspace workspace;
  Result<void> state;
  visit(config, shape, workspace, [&](Tensor& tensor, DType dtype, int64_t rows, int64_t columns) {
    if (!state.ok()) return;
    auto memory = arena.allocate(static_cast<size_t>(rows * columns * device::size_of(dtype)));
    if (!memory.ok()) {
      state = memory.error().with_context("workspace");
      return;
    }
    tensor = Tensor(*memory, dtype, {rows, columns});
  });
  FATHOM_TRY(state);
  return workspace;
}

int64_t workspace_bytes(const ModelConfig& config, const WorkspaceShape& shape) {
  Workspace unused;
  int64_t bytes = 0;
  visit(config, shape, unused, [&](Tensor&, DType dtype, int64_t rows, int64_t columns) {
    bytes += round_up<int64_t>(rows * columns * device::size_of(dtype), 64);
  });
  return bytes;
}

}  // namespace fathom::model

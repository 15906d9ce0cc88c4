#include "model/cuda/workspace.h"

#include <algorithm>

#include "base/math.h"
#include "ops/mla_decode/cuda.h"

namespace fathom::model::cuda {
namespace {

using device::DType;

// Takes memory until something fails, and remembers that. Without an arena it only counts.
class Taker {
 public:
  Taker(device::cuda::DeviceArena* arena, DType activations) : arena_(arena), activations_(activations) {}

  ops::cuda::Matrix matrix(int64_t rows, int64_t columns) {
    return {take(rows * columns * device::size_of(activations_)), activations_, rows, columns};
  }
  template <class T>
  T* array(int64_t count) {
    return static_cast<T*>(take(count * static_cast<int64_t>(sizeof(T))));
  }
  ops::cuda::QuantizedMatrix rounded(int64_t rows, int64_t columns) {
    ops::cuda::QuantizedMatrix m;
    m.rows = m.scale_stride = rows;
    m.columns = columns;
    m.stride = round_up<int64_t>(columns, 16);
    m.values = array<uint8_t>(rows * m.stride);
    m.scales = array<float>(ceil_div<int64_t>(columns, 128) * rows);
    return m;
  }
  void* take(int64_t bytes) {
    bytes_ += round_up<int64_t>(bytes, 256);
    if (arena_ == nullptr || !state_.ok()) return nullptr;
    auto data = arena_->allocate(static_cast<size_t>(std::max<int64_t>(bytes, 1)));
    if (!data.ok()) {
      state_ = data.error().with_context("workspace");
      return nullptr;
    }
    return *data;
  }
  const Result<void>& state() const { return state_; }
  int64_t bytes() const { return bytes_; }

 private:
  device::cuda::DeviceArena* arena_;
  DType activations_;
  int64_t bytes_ = 0;
  Result<void> state_;
};

}  // namespace

namespace {

Workspace take_all(const ModelConfig& c, const WorkspaceShape& shape, const device::cuda::Gpu& gpu,
                   Taker& take) {
  Workspace w;
  const int64_t t = shape.tokens;
  const int64_t heads = shape.shard.heads.count;
  const int64_t queries = heads * c.query_dim();
  const bool q_lora = c.q_lora_rank > 0;
  w.residual = take.array<float>(t * c.hidden_size);
  w.normed = take.matrix(t, c.hidden_size);
  w.delta = {take.array<float>(t * c.hidden_size), DType::kF32, t, c.hidden_size};
  const bool drafts = c.draft_layers > 0;
  w.states = take.matrix(drafts ? 2 * t + shape.kept_states : t, c.hidden_size);
  w.hidden = w.states.first_rows(t);
  if (drafts) {
    w.draft_hidden = w.states.row_range(t + shape.kept_states, 2 * t + shape.kept_states);
    w.draft_pair = take.matrix(t, 2 * c.hidden_size);
  }
  w.qkv = take.matrix(t, (q_lora ? c.q_lora_rank : queries) + c.latent_width());
  if (q_lora) {
    w.q_latent = take.matrix(t, c.q_lora_rank);
    w.q = take.matrix(t, queries);
  }
  w.attention = take.matrix(t, heads * c.value_dim);
  if (shape.mla) {
    w.absorbed_q = take.matrix(shape.decode_tokens, heads * c.latent_width());
    w.latent_out = take.matrix(shape.decode_tokens, heads * c.kv_lora_rank);
    w.decode_scratch = take.take(
        ops::cuda::mla_decode_workspace(gpu, shape.decode_tokens, heads, c.kv_lora_rank, shape.max_context));
    w.pass_latent = take.matrix(shape.pass_keys, c.kv_lora_rank);
    w.pass_rope = take.matrix(shape.pass_keys, c.rope_dim);
    w.pass_kv = take.matrix(shape.pass_keys, heads * (c.nope_dim + c.value_dim));
    w.partial = take.array<float>(t * heads * c.value_dim);
    w.lse = take.array<float>(t * heads);
  } else {
    w.kv_latent = take.matrix(t, c.latent_width());
    w.kv = take.matrix(t, heads * (c.nope_dim + c.value_dim));
  }
  int64_t widest = 0;
  bool any_moe = false;
  int64_t moe_tokens = t;
  for (int64_t layer = 0; layer < c.num_layers + c.draft_layers; ++layer) {
    any_moe = any_moe || c.is_moe(layer);
    if (!c.is_moe(layer)) widest = std::max(widest, shape.shard.dense.count);
  }
  if (any_moe) {
    const int64_t groups = shape.shard.split.dp;
    moe_tokens = t * groups;
    if (groups > 1) {
      w.all_normed = take.matrix(moe_tokens, c.hidden_size);
      w.all_delta = {take.array<float>(moe_tokens * c.hidden_size), DType::kF32, moe_tokens, c.hidden_size};
      w.all_positions = take.array<int32_t>(moe_tokens);
    }
    const int64_t copies = moe_tokens * c.gate.top_k;
    widest = std::max(widest, shape.shard.shared.count);
    w.gate_logits = take.array<float>(moe_tokens * c.num_experts);
    w.gate_scratch = static_cast<uint64_t*>(
        take.take(ops::cuda::gate_product_workspace(static_cast<int32_t>(c.num_experts))));
    w.expert_ids = take.array<int32_t>(copies);
    w.expert_weights = take.array<float>(copies);
    w.sort.offsets = take.array<int32_t>(c.num_experts + 1);
    w.sort.tokens = take.array<int32_t>(copies);
    w.sort.places = take.array<int32_t>(copies);
    w.sort_scratch = take.array<int32_t>(
        ops::cuda::expert_sort_workspace(moe_tokens, static_cast<int32_t>(c.num_experts), c.gate.top_k));
    if (shape.fp8_x) {
      w.rounded_expert_in = take.rounded(copies, c.hidden_size);
      w.rounded_expert_inner = take.rounded(copies + ops::cuda::kMostBesideRows, shape.shard.expert.count);
      if (groups > 1) w.rounded_all = take.rounded(moe_tokens, c.hidden_size);
    } else {
      w.expert_in = take.matrix(copies, c.hidden_size);
    }
    w.expert_inner = take.matrix(copies + ops::cuda::kMostBesideRows, shape.shard.expert.count);
    w.expert_out = take.matrix(copies, c.hidden_size);
    if (c.num_shared_experts > 0) w.shared_out = take.matrix(moe_tokens, c.hidden_size);
  }
  w.inner = take.matrix(moe_tokens, widest);
  if (shape.fp8_x) {
    w.rounded_normed = take.rounded(t, c.hidden_size);
    if (q_lora) w.rounded_q_latent = take.rounded(t, c.q_lora_rank);
    w.rounded_attention = take.rounded(t, heads * c.value_dim);
    w.rounded_inner = take.rounded(moe_tokens, widest);
  }
  w.logit_hidden = take.matrix(shape.logit_rows, c.hidden_size);
  w.logits = take.array<float>(shape.logit_rows * c.vocab_size);
  return w;
}

}  // namespace

Result<Workspace> allocate_workspace(const ModelConfig& config, const WorkspaceShape& shape,
                                     const device::cuda::Gpu& gpu, device::cuda::DeviceArena& arena) {
  Taker take(&arena, shape.activations);
  Workspace workspace = take_all(config, shape, gpu, take);
  FATHOM_TRY(take.state());
  return workspace;
}

int64_t workspace_bytes(const ModelConfig& config, const WorkspaceShape& shape,
                        const device::cuda::Gpu& gpu) {
  Taker take(nullptr, shape.activations);
  take_all(config, shape, gpu, take);
  return take.bytes();
}

}  // namespace fathom::model::cuda

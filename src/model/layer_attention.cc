// Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1): un-absorbed for prompt tokens,
// absorbed for output tokens, or over a plain cache of keys and values.
#include <algorithm>
#include <cstring>

#include "model/layers.h"

namespace fathom::model {

namespace {

using device::DType;
using device::Tensor;

// Columns [begin, begin + heads * width) of rows [first, last) of a matrix as [rows, heads, width].
Tensor by_heads(const Tensor& matrix, int64_t first, int64_t last, int64_t begin, int64_t heads,
                int64_t width) {
  Tensor view;
  view.data = matrix.row<float>(first) + begin;
  view.dtype = DType::kF32;
  view.rank = 3;
  view.shape = {last - first, heads, width, 0};
  view.stride = {matrix.stride[0], width, 1, 0};
  return view;
}

// The last dimension's [begin, end) of a [T, Nh, D] tensor.
Tensor slice(const Tensor& tensor, int64_t begin, int64_t end) {
  Tensor part = tensor;
  part.data = static_cast<float*>(tensor.data) + begin;
  part.shape[2] = end - begin;
  return part;
}

// Rotated queries [T, Nh, Dn + Dr], and the latent as projected, [T, Dc + Dr].
struct Projected {
  Tensor q, kv_a;
};

Projected project(const Step& step, const MlaWeights& weights) {
  const ModelConfig& c = step.config;
  const int64_t t = step.batch.tokens;
  const int64_t queries = step.shard.heads.count * c.query_dim();
  Workspace& work = step.work;
  const Tensor qkv = work.qkv.rows(0, t);
  weights.qkv_a(step.launch, work.normed.rows(0, t), qkv);
  Projected result;
  if (c.q_lora_rank > 0) {
    const Tensor q_latent = work.q_latent.rows(0, t);
    step.ops.rms_norm(step.launch, {.x = qkv.columns(0, c.q_lora_rank),
                                    .delta = nullptr,
                                    .weight = weights.q_norm,
                                    .eps = static_cast<float>(c.rms_norm_eps),
                                    .y = q_latent});
    weights.q_b(step.launch, q_latent, work.q.rows(0, t));
    result.q = by_heads(work.q, 0, t, 0, step.shard.heads.count, c.query_dim());
    result.kv_a = qkv.columns(c.q_lora_rank, c.q_lora_rank + c.latent_width());
  } else {
    result.q = by_heads(work.qkv, 0, t, 0, step.shard.heads.count, c.query_dim());
    result.kv_a = qkv.columns(queries, queries + c.latent_width());
  }
  step.ops.rope(step.launch, {.x = result.q, .positions = step.batch.positions, .table = &step.rope});
  return result;
}

void extend(const Step& step, const MlaWeights& weights, const ops::KvCache& cache, ops::KeptLayer kept,
            const Tensor& q) {
  const ModelConfig& c = step.config;
  ops::ExtendAttentionArgs args;
  args.q = q.rows(0, step.extend_tokens);
  args.cache = cache;
  args.rows = step.batch.extend_rows;
  args.kv_b = &weights.kv_b.weight;
  args.linear = weights.kv_b.run;
  args.latent = c.kv_lora_rank;
  args.nope = c.nope_dim;
  args.value = c.value_dim;
  args.scale = step.softmax_scale;
  args.kept = kept;
  args.out = by_heads(step.work.attention, 0, step.extend_tokens, 0, step.shard.heads.count, c.value_dim);
  step.ops.extend_attention(step.launch, args);
}

void decode(const Step& step, const MlaWeights& weights, const ops::KvCache& cache, const Tensor& q,
            const DecodePiece& piece) {
  const ModelConfig& c = step.config;
  const int64_t first = piece.first;
  const int64_t last = piece.first + piece.tokens;
  const Tensor mine = q.rows(first, last);
  const Tensor absorbed =
      by_heads(step.work.absorbed_q, 0, last - first, 0, step.shard.heads.count, c.latent_width());
  weights.run_absorb_key(step.launch, {.x = slice(mine, 0, c.nope_dim),
                                       .y = slice(absorbed, 0, c.kv_lora_rank),
                                       .weights = weights.absorb_key});
  const auto rope_bytes = static_cast<size_t>(c.rope_dim) * sizeof(float);
  for (int64_t t = 0; t < last - first; ++t) {
    for (int64_t h = 0; h < step.shard.heads.count; ++h) {
      std::memcpy(absorbed.row<float>(t) + h * absorbed.stride[1] + c.kv_lora_rank,
                  mine.row<float>(t) + h * mine.stride[1] + c.nope_dim, rope_bytes);
    }
  }
  const Tensor latent_out =
      by_heads(step.work.latent_out, 0, last - first, 0, step.shard.heads.count, c.kv_lora_rank);
  ops::MlaDecodeArgs args;
  args.q = absorbed;
  args.cache = cache;
  args.rows = piece.rows;
  args.latent = c.kv_lora_rank;
  args.scale = step.softmax_scale;
  args.out = latent_out;
  step.ops.mla_decode(step.launch, args);
  weights.run_absorb_value(
      step.launch, {.x = latent_out,
                    .y = by_heads(step.work.attention, first, last, 0, step.shard.heads.count, c.value_dim),
                    .weights = weights.absorb_value});
}

void latent_attention(const Step& step, const MlaWeights& weights, const ops::KvCache& cache,
                      ops::KeptLayer kept, const Projected& projected) {
  step.ops.latent_write(step.launch, {.kv_a = projected.kv_a,
                                      .norm_weight = weights.kv_norm,
                                      .eps = static_cast<float>(step.config.rms_norm_eps),
                                      .rope = &step.rope,
                                      .positions = step.batch.positions,
                                      .places = step.batch.places,
                                      .cache = cache,
                                      .copy = nullptr});
  if (step.extend_tokens > 0) extend(step, weights, cache, kept, projected.q);
  for (const DecodePiece& piece : step.decode) decode(step, weights, cache, projected.q, piece);
}

void attend_plain(const Step& step, const ops::KvCache& cache, const Tensor& q, int64_t first, int64_t last,
                  std::span<const ops::AttentionRow> rows) {
  ops::MhaAttentionArgs args;
  args.q = q.rows(first, last);
  args.cache = cache;
  args.rows = rows;
  args.value = step.config.value_dim;
  args.scale = step.softmax_scale;
  args.out = by_heads(step.work.attention, first, last, 0, step.shard.heads.count, step.config.value_dim);
  step.ops.mha_attention(step.launch, args);
}

void plain_attention(const Step& step, const MlaWeights& weights, const ops::KvCache& cache,
                     const Projected& projected) {
  const ModelConfig& c = step.config;
  const int64_t t = step.batch.tokens;
  const Tensor latent = step.work.kv_latent.rows(0, t);
  step.ops.rms_norm(step.launch, {.x = projected.kv_a.columns(0, c.kv_lora_rank),
                                  .delta = nullptr,
                                  .weight = weights.kv_norm,
                                  .eps = static_cast<float>(c.rms_norm_eps),
                                  .y = latent});
  weights.kv_b(step.launch, latent, step.work.kv.rows(0, t));
  const Tensor k_rope = projected.kv_a.columns(c.kv_lora_rank, c.latent_width());
  Tensor one_head = k_rope;
  one_head.rank = 3;
  one_head.shape = {t, 1, c.rope_dim, 0};
  one_head.stride = {k_rope.stride[0], c.rope_dim, 1, 0};
  step.ops.rope(step.launch, {.x = one_head, .positions = step.batch.positions, .table = &step.rope});
  step.ops.plain_write(step.launch, {.k_nope_v = by_heads(step.work.kv, 0, t, 0, step.shard.heads.count,
                                                          c.nope_dim + c.value_dim),
                                     .k_rope = k_rope,
                                     .nope = c.nope_dim,
                                     .places = step.batch.places,
                                     .cache = cache});
  if (step.extend_tokens > 0) {
    attend_plain(step, cache, projected.q, 0, step.extend_tokens, step.batch.extend_rows);
  }
  for (const DecodePiece& piece : step.decode) {
    attend_plain(step, cache, projected.q, piece.first, piece.first + piece.tokens, piece.rows);
  }
}

}  // namespace

std::span<const DecodePiece> DecodePieces::cut(std::span<const ops::AttentionRow> rows, int64_t limit) {
  size_t used = 0;
  for (ops::AttentionRow row : rows) {
    while (row.count > 0) {
      if (used == 0 || pieces_[used - 1].tokens == limit) {
        if (used == pieces_.size()) pieces_.emplace_back();
        DecodePiece& fresh = pieces_[used++];
        fresh.first = row.first;
        fresh.tokens = 0;
        fresh.rows.clear();
      }
      DecodePiece& piece = pieces_[used - 1];
      ops::AttentionRow part = row;
      part.first = static_cast<int32_t>(piece.tokens);
      part.count = std::min(row.count, static_cast<int32_t>(limit - piece.tokens));
      piece.rows.push_back(part);
      piece.tokens += part.count;
      row.first += part.count;
      row.start += part.count;
      row.count -= part.count;
    }
  }
  return std::span(pieces_).first(used);
}

void attention_block(const Step& step, const MlaWeights& weights, const ops::KvCache& cache,
                     ops::KeptLayer kept) {
  const Projected projected = project(step, weights);
  if (step.mla) {
    latent_attention(step, weights, cache, kept, projected);
  } else {
    plain_attention(step, weights, cache, projected);
  }
  const int64_t t = step.batch.tokens;
  weights.out(step.launch, step.work.attention.rows(0, t), step.work.delta.rows(0, t));
}

}  // namespace fathom::model

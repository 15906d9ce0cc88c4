// Multi-head latent attention on the GPU; model/layer_attention.cc says more.
#include "model/cuda/layers.h"
#include "ops/kv_write/cuda.h"
#include "ops/mha_attention/cuda.h"
#include "ops/mla_decode/cuda.h"
#include "ops/mla_decode/queries.h"
#include "ops/mla_decode/values.h"
#include "ops/quantize/cuda.h"
#include "ops/rms_norm/cuda.h"

namespace fathom::model::cuda {
namespace {

using ops::cuda::BatchView;
using ops::cuda::Matrix;

constexpr int64_t kFewTokens = 256;

struct Projected {
  Matrix q;     // [T, Nh (Dn + Dr)], not rotated
  Matrix kv_a;  // [T, Dc + Dr], as projected
};

// What precedes the split in queries and entries.
ops::cuda::LinearArgs first_projection(const Step& step, const MlaWeights& weights) {
  const int64_t t = step.batch.view.tokens;
  return {.x = step.work.normed.first_rows(t),
          .y = step.work.qkv.first_rows(t),
          .weight = &weights.qkv_a,
          .x8 = step.work.rounded_normed.first_rows(t)};
}

Projected project(const Step& step, const MlaWeights& weights) {
  const ModelConfig& c = step.config;
  const int64_t t = step.batch.view.tokens;
  const Workspace& work = step.work;
  const ops::cuda::LinearArgs projection = first_projection(step, weights);
  const Matrix& qkv = projection.y;
  if (c.q_lora_rank == 0) {
    ops::cuda::linear(step.stream, projection);
    const int64_t queries = step.shard.heads.count * c.query_dim();
    return {qkv.slice(0, queries), qkv.slice(queries, queries + c.latent_width())};
  }
  const Matrix q_latent = work.q_latent.first_rows(t);
  Workspace::Rounded rounded;
  if (weights.q_b.fp8_x) rounded = work.rounded_q_latent.first_rows(t);
  ops::cuda::linear_and_norm(step.stream, projection,
                             {.x = qkv.slice(0, c.q_lora_rank),
                              .y = q_latent,
                              .weight = weights.q_norm,
                              .eps = static_cast<float>(c.rms_norm_eps),
                              .rounded = rounded});
  ops::cuda::linear(step.stream,
                    {.x = q_latent, .y = work.q.first_rows(t), .weight = &weights.q_b, .x8 = rounded});
  return {work.q.first_rows(t), qkv.slice(c.q_lora_rank, c.q_lora_rank + c.latent_width())};
}

// The tokens [begin, end) of the batch.
BatchView part_of(const BatchView& batch, int64_t begin, int64_t end) {
  BatchView part = batch;
  part.tokens = end - begin;
  part.positions += begin;
  part.places += begin;
  part.slots += begin;
  return part;
}

// The queries' rotation in place, of tokens [begin, end).
ops::cuda::RopeArgs rotation(const Step& step, const Matrix& q, int64_t begin, int64_t end) {
  const ModelConfig& c = step.config;
  ops::cuda::RopeArgs args;
  args.x = q.row_range(begin, end);
  args.heads = step.shard.heads.count;
  args.width = c.query_dim();
  args.y = args.x;
  args.y_head_stride = c.query_dim();
  args.y_offset = c.nope_dim;
  args.positions = step.batch.view.positions + begin;
  args.table = step.rope;
  return args;
}

// The same, of output tokens: beside their absorbed queries.
ops::cuda::RopeArgs absorbed_rotation(const Step& step, const Matrix& q, int64_t begin, int64_t end) {
  const ModelConfig& c = step.config;
  ops::cuda::RopeArgs args = rotation(step, q, begin, end);
  args.y = step.work.absorbed_q.first_rows(end - begin);
  args.y_head_stride = c.latent_width();
  args.y_offset = c.kv_lora_rank;
  return args;
}

void extend(const Step& step, const MlaWeights& weights, const ops::cuda::CacheView& cache, const Matrix& q) {
  const ModelConfig& c = step.config;
  const Workspace& work = step.work;
  for (const ExtendPass& pass : step.batch.passes) {
    const auto rows = static_cast<int64_t>(pass.rows.size());
    const Matrix latent = work.pass_latent.first_rows(pass.keys);
    const Matrix rope = work.pass_rope.first_rows(pass.keys);
    const Matrix kv = work.pass_kv.first_rows(pass.keys);
    ops::cuda::latent_gather(step.stream, {.cache = cache,
                                           .batch = step.batch.view,
                                           .rows = pass.device_rows,
                                           .num_rows = rows,
                                           .keys = pass.keys,
                                           .latent_width = c.kv_lora_rank,
                                           .latent = latent,
                                           .rope = rope});
    ops::cuda::linear(step.stream, {.x = latent, .y = kv, .weight = &weights.kv_b});
    ops::cuda::extend_attention(step.stream, {.q = q.first_rows(step.batch.extend_tokens),
                                              .kv = kv,
                                              .k_rope = rope,
                                              .rows = pass.device_rows,
                                              .host_rows = pass.rows.data(),
                                              .num_rows = rows,
                                              .heads = step.shard.heads.count,
                                              .nope = c.nope_dim,
                                              .value = c.value_dim,
                                              .scale = step.softmax_scale,
                                              .out = work.attention.first_rows(step.batch.extend_tokens),
                                              .partial = work.partial,
                                              .lse = work.lse});
  }
}

void absorb(const Step& step, const MlaWeights& weights, const Matrix& q, int64_t begin, int64_t end) {
  const ModelConfig& c = step.config;
  const Matrix absorbed = step.work.absorbed_q.first_rows(end - begin);
  ops::cuda::batched_linear(step.stream, {.linear = {.x = q.row_range(begin, end).slice(0, c.nope_dim),
                                                     .y = absorbed.slice(0, c.kv_lora_rank),
                                                     .weight = &weights.absorb_key},
                                          .x_step = c.query_dim(),
                                          .y_step = c.latent_width()});
}

// The absorbed queries are there. `rounded` of the values, if it is not empty; false: that is left to do.
bool decode(const Step& step, const MlaWeights& weights, const ops::cuda::CacheView& cache, int64_t begin,
            int64_t end, const Workspace::Rounded& rounded) {
  const ModelConfig& c = step.config;
  const ops::cuda::MlaDecodeArgs args{
      .q = step.work.absorbed_q.first_rows(end - begin),
      .cache = cache,
      .batch = part_of(step.batch.view, begin, end),
      .branches = step.batch.branches.from(begin),
      .heads = step.shard.heads.count,
      .latent = c.kv_lora_rank,
      .scale = step.softmax_scale,
      // Sampling and the step's input come before, which are not launched early.
      .settled = end - begin == step.batch.view.tokens,
      .max_context = step.max_context,
      .workspace = step.work.decode_scratch,
      .out = step.work.latent_out.first_rows(end - begin)};
  const Matrix values = step.work.attention.row_range(begin, end);
  if (ops::cuda::mla_values(
          step.stream, {.decode = args, .weight = &weights.absorb_value, .y = values, .rounded = rounded})) {
    return true;
  }
  ops::cuda::mla_decode(step.stream, args);
  ops::cuda::batched_linear(step.stream, {.linear = {.x = args.out.slice(0, c.kv_lora_rank),
                                                     .y = values.slice(0, c.value_dim),
                                                     .weight = &weights.absorb_value},
                                          .x_step = c.kv_lora_rank,
                                          .y_step = c.value_dim});
  return false;
}

ops::cuda::LatentWriteArgs latent_entries(const Step& step, const MlaWeights& weights,
                                          const ops::cuda::CacheView& cache, const Matrix& kv_a) {
  ops::cuda::LatentWriteArgs latent;
  latent.kv_a = kv_a;
  latent.norm_weight = weights.kv_norm;
  latent.eps = static_cast<float>(step.config.rms_norm_eps);
  latent.rope = step.rope;
  latent.batch = step.batch.view;
  latent.cache = cache;
  return latent;
}

// `rounded` of the values, if it is not empty; false: that is left to do.
bool latent_attention(const Step& step, const MlaWeights& weights, const ops::cuda::CacheView& cache,
                      const Projected& projected, const Workspace::Rounded& rounded) {
  const int64_t tokens = step.batch.view.tokens;
  const int64_t extend_tokens = step.batch.extend_tokens;
  const ops::cuda::LatentWriteArgs latent = latent_entries(step, weights, cache, projected.kv_a);
  // One launch serves few tokens, two side by side a decode step of more; for many, one after another is
  // faster (ops/kv_write/README.md).
  const bool together = extend_tokens == 0 && tokens <= std::min<int64_t>(step.decode_tokens, kFewTokens);
  if (together) {
    const ops::cuda::RopeArgs rotation = absorbed_rotation(step, projected.q, 0, tokens);
    if (!ops::cuda::mla_queries(step.stream,
                                {.q = rotation, .weight = &weights.absorb_key, .latent = latent})) {
      ops::cuda::rope_and_latent_write(step.beside.fork(step.stream), rotation, latent);
      absorb(step, weights, projected.q, 0, tokens);
      step.beside.join(step.stream);
    }
    return decode(step, weights, cache, 0, tokens, rounded);
  }
  ops::cuda::latent_write(step.stream, latent);
  if (extend_tokens > 0) ops::cuda::rope(step.stream, rotation(step, projected.q, 0, extend_tokens));
  if (extend_tokens > 0) extend(step, weights, cache, projected.q);
  for (int64_t begin = extend_tokens; begin < tokens; begin += step.decode_tokens) {
    const int64_t end = std::min(begin + step.decode_tokens, tokens);
    ops::cuda::rope(step.stream, absorbed_rotation(step, projected.q, begin, end));
    absorb(step, weights, projected.q, begin, end);
    decode(step, weights, cache, begin, end, {});
  }
  return false;
}

void write_plain_entries(const Step& step, const MlaWeights& weights, const ops::cuda::CacheView& cache,
                         const Matrix& kv_a) {
  const ModelConfig& c = step.config;
  const int64_t t = step.batch.view.tokens;
  const Matrix latent = step.work.kv_latent.first_rows(t).slice(0, c.kv_lora_rank);
  const Matrix kv = step.work.kv.first_rows(t);
  ops::cuda::rms_norm(step.stream, {.x = kv_a.slice(0, c.kv_lora_rank),
                                    .y = latent,
                                    .weight = weights.kv_norm,
                                    .eps = static_cast<float>(c.rms_norm_eps)});
  ops::cuda::linear(step.stream, {.x = latent, .y = kv, .weight = &weights.kv_b});
  const Matrix k_rope = kv_a.slice(c.kv_lora_rank, c.latent_width());
  ops::cuda::rope(step.stream, {.x = k_rope,
                                .heads = 1,
                                .width = c.rope_dim,
                                .y = k_rope,
                                .y_head_stride = c.rope_dim,
                                .y_offset = 0,
                                .positions = step.batch.view.positions,
                                .table = step.rope});
  ops::cuda::plain_write(step.stream, {.k_nope_v = kv,
                                       .k_rope = k_rope,
                                       .heads = step.shard.heads.count,
                                       .nope = c.nope_dim,
                                       .value = c.value_dim,
                                       .batch = step.batch.view,
                                       .cache = cache});
}

void plain_attention(const Step& step, const MlaWeights& weights, const ops::cuda::CacheView& cache,
                     const Projected& projected) {
  const ModelConfig& c = step.config;
  const int64_t t = step.batch.view.tokens;
  write_plain_entries(step, weights, cache, projected.kv_a);
  ops::cuda::rope(step.stream, rotation(step, projected.q, 0, t));
  ops::cuda::mha_attention(step.stream, {.q = projected.q,
                                         .cache = cache,
                                         .batch = step.batch.view,
                                         .branches = step.batch.branches,
                                         .heads = step.shard.heads.count,
                                         .key = c.query_dim(),
                                         .value = c.value_dim,
                                         .scale = step.softmax_scale,
                                         .out = step.work.attention.first_rows(t)});
}

}  // namespace

void write_entries(const Step& step, const MlaWeights& weights, const ops::cuda::CacheView& cache) {
  const ModelConfig& c = step.config;
  const ops::cuda::LinearArgs projection = first_projection(step, weights);
  ops::cuda::linear(step.stream, projection);
  const Matrix& qkv = projection.y;
  const int64_t first = qkv.columns - c.latent_width();
  const Matrix kv_a = qkv.slice(first, qkv.columns);
  if (step.mla) {
    ops::cuda::latent_write(step.stream, latent_entries(step, weights, cache, kv_a));
  } else {
    write_plain_entries(step, weights, cache, kv_a);
  }
}

void attention_block(const Step& step, const MlaWeights& weights, const ops::cuda::CacheView& cache) {
  const int64_t t = step.batch.view.tokens;
  const Matrix attention = step.work.attention.first_rows(t);
  Workspace::Rounded rounded;
  if (weights.out.fp8_x) rounded = step.work.rounded_attention.first_rows(t);
  const Projected projected = project(step, weights);
  bool done = false;
  if (step.mla) {
    done = latent_attention(step, weights, cache, projected, rounded);
  } else {
    plain_attention(step, weights, cache, projected);
  }
  if (weights.out.fp8_x && !done) ops::cuda::quantize(step.stream, {.x = attention, .y = rounded});
  ops::cuda::linear(
      step.stream,
      {.x = attention, .y = step.work.delta.first_rows(t), .weight = &weights.out, .x8 = rounded});
}

}  // namespace fathom::model::cuda

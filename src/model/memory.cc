#include "model/memory.h"

#include <algorithm>

#include "base/math.h"
#include "model/weight_names.h"
#include "model/workspace.h"

namespace fathom::model {

namespace {

using device::DType;

enum Part { kEmbedding, kAttention, kDense, kExperts, kShared, kGate, kNorms, kHead, kDraftCopies };
constexpr const char* kPartNames[] = {"embedding",      "attention",      "dense layers",
                                      "routed experts", "shared experts", "gates",
                                      "norms",          "head",           "draft copies"};

Part part_of(std::string_view name) {
  const auto has = [&](std::string_view word) { return name.find(word) != name.npos; };
  if (has("embed_tokens")) return kEmbedding;
  if (has("lm_head")) return kHead;
  if (has("norm.weight") || has("layernorm")) return kNorms;
  if (has("self_attn")) return kAttention;
  if (has("shared_experts")) return kShared;
  if (has("mlp.experts")) return kExperts;
  if (has("mlp.gate.")) return kGate;
  return kDense;
}

int64_t count(const weights::WeightSpec& spec) {
  int64_t product = 1;
  for (const int64_t dim : spec.shape) product *= dim;
  return product;
}

// To the rank's part.
void cut(const ModelConfig& config, const Shard& shard, weights::WeightSpec& spec) {
  if (!has_part_of(config, shard, spec.name)) {
    spec.shape.front() = 0;
    return;
  }
  if (spec.shape.size() != 2) return;
  const weights::Slice slice = slice_of(config, shard, spec.name, spec.shape[0], spec.shape[1]);
  spec.shape = {slice.rows * copies_of(shard, spec.name), slice.cols};
}

// What a matrix takes once packed: panels of 16 rows, FP8 with a float32 scale for each 128 columns of
// `scale_rows` rows.
int64_t packed_bytes(const weights::WeightSpec& spec, DType stored, ops::Compute compute,
                     int64_t scale_rows) {
  const int64_t n = round_up<int64_t>(spec.shape[0], 16);
  const int64_t k = round_up<int64_t>(spec.shape[1], 2);
  if (stored == DType::kF8E4M3) return n * k + n / scale_rows * ceil_div<int64_t>(k, 128) * 4;
  const bool wide = compute == ops::Compute::kF32 && stored != DType::kBF16;
  return n * k * (wide ? 4 : 2);
}

}  // namespace

bool copies_for_draft(ops::Compute compute, DType stored, int64_t n, int64_t k) {
  constexpr int64_t kLarge = int64_t{32} << 20;  // numbers; a smaller one is read in microseconds
  return compute == ops::Compute::kBF16 && stored == DType::kBF16 && n * k >= kLarge;
}

MemoryPlan plan_memory(const ModelConfig& config, const MemoryOptions& options) {
  MemoryPlan plan;
  const Shard shard = options.shard ? *options.shard : whole_model(config);
  for (const char* name : kPartNames) plan.weights.push_back({name, 0, 0});
  for (auto& spec : weight_table(config)) {
    const Part part = part_of(spec.name);
    cut(config, shard, spec);
    const DType stored = stored_dtype(config, spec.name);
    int64_t bytes = 0;
    if (part == kEmbedding) {
      bytes = count(spec) * device::size_of(stored);
    } else if (spec.shape.size() == 1) {
      bytes = count(spec) * 4;
    } else {
      bytes = packed_bytes(spec, stored, part == kGate ? ops::Compute::kF32 : options.compute,
                           options.scale_rows);
      // MLA keeps kv_b whole for extend and by heads, absorbed, for decode.
      if (options.mla && spec.name.ends_with("kv_b_proj.weight")) bytes *= 2;
    }
    plan.weights[part].parameters += count(spec);
    plan.weights[part].bytes += bytes;
  }
  if (config.tie_word_embeddings && shard.last_stage()) {
    plan.weights[kHead].bytes =
        packed_bytes({"", {shard.vocab.count, config.hidden_size}}, config.dtype, options.compute, 1);
  }
  if (options.draft_copies && config.draft_layers > 0 && shard.last_stage()) {
    const auto copy = [&](DType stored, int64_t n, int64_t k) {
      if (!copies_for_draft(options.compute, stored, n, k)) return;
      plan.weights[kDraftCopies].bytes += packed_bytes({"", {n, k}}, DType::kF8E4M3, options.compute, 8);
    };
    copy(config.tie_word_embeddings ? config.dtype : stored_dtype(config, "lm_head.weight"),
         config.draft_vocab > 0 ? config.draft_vocab : shard.vocab.count, config.hidden_size);
    copy(stored_dtype(config, layer_prefix(config.num_layers) + "eh_proj.weight"), config.hidden_size,
         2 * config.hidden_size);
  }
  const auto active = [&](int64_t total) {
    return config.num_experts == 0 ? total : total / config.num_experts * config.gate.top_k;
  };
  for (size_t i = 0; i < plan.weights.size(); ++i) {
    const MemoryPart& part = plan.weights[i];
    plan.parameters += part.parameters;
    plan.weight_bytes += part.bytes;
    plan.active_parameters += i == kExperts ? active(part.parameters) : part.parameters;
    if (i != kEmbedding && i != kDraftCopies)
      plan.decode_bytes += i == kExperts ? active(part.bytes) : part.bytes;
  }
  // A decode step reads kv_b in one of its two forms.
  if (options.mla) {
    for (int64_t layer = 0; layer < config.num_layers + config.draft_layers; ++layer) {
      if (!has_part_of(config, shard, layer_prefix(layer))) continue;
      const std::string name = layer_prefix(layer) + "self_attn.kv_b_proj.weight";
      plan.decode_bytes -= packed_bytes(
          {name, {shard.heads.count * (config.nope_dim + config.value_dim), config.kv_lora_rank}},
          stored_dtype(config, name), options.compute, options.scale_rows);
    }
  }
  const int64_t context = options.max_context > 0 ? options.max_context : config.max_positions;
  plan.workspace_bytes =
      workspace_bytes(config, {options.max_tokens, options.max_logit_rows, options.mla, shard}) +
      context * config.rope_dim * static_cast<int64_t>(sizeof(float));
  const int64_t width = options.mla ? config.latent_width() : config.plain_width(shard.heads.count);
  plan.kv_bytes_per_token =

      cached_layers(config, shard) * width * device::size_of(options.kv_dtype);
  return plan;
}

Result<void> check_memory(int64_t weights, int64_t workspaces, int64_t free, std::string_view device) {
  if (weights + workspaces <= free) return {};
  return error(ErrorCode::kUnavailable,
               "the weights take {:.1f} GB and the workspaces {:.1f} GB, but {} has {:.1f} GB free: lower "
               "--chunked-prefill-size or --max-running-requests, or use one with more memory",
               static_cast<double>(weights) * 1e-9, static_cast<double>(workspaces) * 1e-9, device,
               static_cast<double>(free) * 1e-9);
}

int64_t stored_bytes(const ModelConfig& config) {
  return stored_bytes(config, whole_model(config));
}

int64_t stored_bytes(const ModelConfig& config, const Shard& shard) {
  int64_t bytes = 0;
  for (auto& spec : weight_table(config)) {
    cut(config, shard, spec);
    bytes += count(spec) * device::size_of(stored_dtype(config, spec.name));
  }
  return bytes;
}

}  // namespace fathom::model

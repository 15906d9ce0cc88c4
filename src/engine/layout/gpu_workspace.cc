#include "engine/layout/gpu_workspace.h"

#include <algorithm>

namespace fathom::engine {
namespace {

constexpr int64_t kPassPlaces = 4096;  // of a prompt's keys that one pass attends to
// Partial results of absorbed attention: for each of a GPU's multiprocessors a tile of 64 heads and 512
// values, and for each head some two hundred pieces.
constexpr int64_t kTileScratch = int64_t{132} * 64 * 512 * 4;
constexpr int64_t kPieces = 200;

}  // namespace

int64_t gpu_workspace_bytes(const EngineOptions& options, const model::Shard& shard) {
  const model::ModelConfig& c = options.config;
  const int64_t act = options.load.compute == ops::Compute::kF32 ? 4 : 2;
  const int64_t t = options.step_tokens();
  const int64_t decode = std::min<int64_t>(t, std::max<int64_t>(options.decode_tokens(), 64));
  const int64_t heads = shard.heads.count;
  const bool drafts = c.draft_layers > 0;
  int64_t bytes = t * c.hidden_size * (4 + act + 4 + act);  // residual, normed, delta, hidden
  if (drafts) bytes += (2 * t + t + options.decode_tokens()) * c.hidden_size * act;
  const int64_t queries = heads * c.query_dim();
  bytes += t * ((c.q_lora_rank > 0 ? 2 * c.q_lora_rank + queries : queries) + c.latent_width()) * act;
  bytes += t * heads * c.value_dim * act;
  if (options.load.mla) {
    bytes += decode * heads * (c.latent_width() + c.kv_lora_rank) * act;
    bytes += kTileScratch + kPieces * heads * (c.kv_lora_rank + 2) * 4;
    bytes += kPassPlaces * (c.latent_width() + heads * (c.nope_dim + c.value_dim)) * act;
    bytes += t * heads * (c.value_dim + 1) * 4;
  } else {
    bytes += t * (c.latent_width() + heads * (c.nope_dim + c.value_dim)) * act;
  }
  const int64_t all = t * shard.split.dp;  // tokens that the experts see
  int64_t inner = 0;
  for (int64_t layer = 0; layer < c.num_layers + c.draft_layers; ++layer) {
    if (!c.is_moe(layer)) inner = std::max(inner, t * shard.dense.count);
  }
  if (c.num_experts > 0) {
    const int64_t copies = all * c.gate.top_k;
    inner = std::max(inner, all * shard.shared.count);
    bytes += all * c.num_experts * 4 + copies * (2 * c.hidden_size + shard.expert.count) * act;
    if (c.num_shared_experts > 0) bytes += all * c.hidden_size * act;
    if (shard.split.dp > 1) bytes += all * c.hidden_size * (act + 4);
  }
  const int64_t rows = options.decode_tokens();
  bytes += inner * act + rows * (c.hidden_size * act + c.vocab_size * 4);
  return bytes + options.load.max_context * c.rope_dim * 4;
}

}  // namespace fathom::engine

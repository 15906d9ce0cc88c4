// A DeepSeek V2 or V3 model on one device: weights in their packed layouts, the workspaces of a step, and the
// forward pass. Knows tokens and pages, nothing of requests.
//
//   auto model = Model::build(config, options, pool);
//   auto kv = KvPool::allocate((*model)->kv_layout(), num_pages, page_size);
//   (*model)->forward(launch, batch, &output);
//
// Not thread safe: one forward at a time. A token's logits are the same bit for bit whatever else is in the
// batch and however its prompt was cut, because every op keeps that promise.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "device/arena.h"
#include "device/launch.h"
#include "device/tensor.h"
#include "dist/group.h"
#include "model/config.h"
#include "model/shard.h"
#include "ops/kv_cache.h"
#include "ops/linear/linear.h"
#include "weights/checkpoint.h"

namespace fathom::model {

// What one token takes in the cache.
struct KvLayout {
  int64_t layers = 0;
  int64_t width = 0;  // values a token and layer (ops/kv_cache.h)
  device::DType dtype = device::DType::kBF16;
  int64_t bytes_per_token() const { return layers * width * device::size_of(dtype); }
};

// The cache's memory: one KvCache a layer, all with the same pages. Zeroed. Movable.
class KvPool {
 public:
  // kUnavailable when the memory is not there.
  static Result<KvPool> allocate(const KvLayout& layout, int64_t num_pages, int64_t page_size);

  const ops::KvCache& layer(int64_t index) const { return layers_[static_cast<size_t>(index)]; }
  int64_t num_pages() const { return num_pages_; }
  int64_t page_size() const { return page_size_; }
  int64_t bytes() const;

 private:
  std::vector<device::Buffer> buffers_;
  std::vector<ops::KvCache> layers_;
  int64_t num_pages_ = 0;
  int64_t page_size_ = 0;
};

struct LoadOptions {
  // Where the weights are. Null: deterministic random weights (--load-format dummy). Not kept after build.
  const weights::Checkpoint* checkpoint = nullptr;
  uint64_t seed = 0;  // of random weights

  device::Target target;
  ops::Compute compute = ops::Compute::kBF16;     // --dtype float32: kF32
  device::DType kv_dtype = device::DType::kBF16;  // of the cache: kF32 or kBF16
  bool mla = true;                                // false: plain cache (--disable-mla)
  int64_t max_tokens = 2048;                      // of one forward
  int64_t max_logit_rows = 256;                   // of one forward or one call of logits()
  int64_t max_context = 0;                        // positions 0 .. max_context - 1; 0: the config's
  // Memory in which keys and values that a long prompt's chunk has projected are kept for the next one
  // (ops/extend_attention/kept_keys.h), of all local ranks together; taken as it is used. With mla.
  int64_t kept_bytes = 0;
  // All ranks of the model, split.world() of them, and this rank's place among them: the model is the rank's
  // shard (shard.h), and its passes meet those of the others, which must be given passes of the same kinds in
  // the same order; ranks of one group of requests, the same batches. Null: the whole model. Must outlive the
  // model. build() meets the others too; where it fails it ends the group.
  dist::Group* group = nullptr;
  Split split;
  int local_ranks = 1;  // of the group, that share this machine's memory
  // Called from the building thread now and then: bytes of the checkpoint (or of random weights) taken, and
  // to take.
  std::function<void(int64_t done, int64_t total)> progress;
};

// Before a pass, in all of its layers: the entry at place `from` to place `to`, one after another.
struct KvMove {
  int64_t from = 0, to = 0;
};

// One step's tokens. The arrays belong to the caller and live through the call.
struct ForwardBatch {
  int64_t tokens = 0;                  // T <= max_tokens
  const int32_t* token_ids = nullptr;  // [T] in [0, V)
  const int32_t* positions = nullptr;  // [T]
  const int64_t* places = nullptr;     // [T] page * page_size + offset: where each token's entry goes
  // The rows' `first` counts in the batch. Extend rows cover [0, Te), decode rows [Te, T), in order.
  std::span<const ops::AttentionRow> extend_rows;
  std::span<const ops::AttentionRow> decode_rows;
  std::span<const int32_t> logit_rows;  // R <= max_logit_rows tokens of the batch, in any order
  // [dp] tokens of each group of requests in this pass, this one's among them; empty with one group. Where
  // there are several, T may be 0: the rank then has its part in the experts alone.
  std::span<const int64_t> group_tokens;
  // Of guessed tokens that held, to where the sequence has their positions; not in the draft layer.
  std::span<const KvMove> moves;
  const KvPool* cache = nullptr;
};

// Tokens for the draft layer. Entry p of its cache is made of the hidden state at position p and of the token
// at p + 1, and predicts the token at p + 2.
struct DraftBatch {
  // As for a forward pass, but token_ids[t] is the token after positions[t]; the cache is the same pool, in
  // which the draft layer has a layer of its own.
  ForwardBatch batch;
  // [T] pointers to H floats each: the model's hidden state at positions[t] (ForwardOutput::hidden, or a
  // copy), or the draft layer's own, to draft further.
  std::span<const float* const> hidden;
};

// Views of the model's workspace, valid until its next forward() or logits().
struct ForwardOutput {
  device::Tensor logits;  // [R, V] f32, in the order of logit_rows
  device::Tensor hidden;  // [T, H] f32, after the final norm; valid until the next forward(). Before the last
                          // stage only where the model drafts
};

// What balance_experts() did in the layers of a rank.
struct ExpertBalance {
  double before = 1.0, after = 1.0;  // tokens of the busiest set over the mean one's; the mean of layers
  int64_t moved = 0;                 // experts that a set got from others
};

// How long the parts of build() took, and how much they made.
struct LoadReport {
  double check_seconds = 0.0;  // names, shapes and types
  double pack_seconds = 0.0;   // reading and packing
  int64_t weight_bytes = 0;    // in memory
  int64_t workspace_bytes = 0;
  int64_t skipped_tensors = 0;  // of MTP layers, known and not loaded
  // What does the work, for the start-up log: ("linear bfloat16", "avx512-bf16"), ...
  std::vector<std::pair<std::string, std::string>> implementations;
};

class Model {
 public:
  // Reads, checks and packs every weight. One error names every tensor that is missing, unexpected or of the
  // wrong shape or type.
  static Result<std::unique_ptr<Model>> build(const ModelConfig& config, const LoadOptions& options,
                                              ThreadPool& pool);
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const ModelConfig& config() const;
  const KvLayout& kv_layout() const;
  const LoadReport& report() const;
  int64_t max_tokens() const;
  int64_t max_logit_rows() const;
  int64_t max_context() const;

  // Why the group has failed: what a forward pass gave since then is worth nothing. Nothing where there is
  // none.
  Result<void> group_state() const;

  // Writes the tokens' cache entries, then the hidden states and the wanted logits (on every rank).
  void forward(device::Launch& launch, const ForwardBatch& batch, ForwardOutput* output);

  // One pass of the draft layer; needs ModelConfig::draft_layers. Writes its cache entries, then its hidden
  // states and the wanted logits. output->hidden is valid until the next draft(); the hidden states of the
  // last forward() stay. The same promise as forward's: bits do not depend on the batch.
  void draft(device::Launch& launch, const DraftBatch& batch, ForwardOutput* output);

  // Moves routed experts between the sets of ranks so that each has as much to do, as counted since the last
  // time; every rank of the stage at the same time. A failure is the group's. Afterwards sums are ordered
  // differently: a token's bits are the same whatever its batch, from one time to the next.
  ExpertBalance balance_experts();

  // Logits [R, V] f32 of further tokens of the last forward (prompt logprobs take them in pieces). Overwrites
  // the logits that forward() gave.
  device::Tensor logits(device::Launch& launch, std::span<const int32_t> rows);

 private:
  struct State;
  explicit Model(std::unique_ptr<State> state);
  static Result<std::unique_ptr<Model>> build_shard(const ModelConfig& config, const LoadOptions& options,
                                                    const Shard& shard, ThreadPool& pool);
  std::unique_ptr<State> state_;
};

}  // namespace fathom::model

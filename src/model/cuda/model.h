// A DeepSeek V2 or V3 model on one GPU, or a rank's share of it on one of several: the counterpart of
// model/model.h. Weights in the GPU's layouts, one workspace, and a forward pass that only queues work: it
// can be captured in a graph, for its shape depends on the numbers in GpuBatch alone, never on what the
// arrays on the device hold.
//
// All ranks of a group queue the same passes, each on its own GPU and thread. They have the same batches, and
// the same logits, bit for bit; or, where each is a group of requests of its own (Split::dp), batches and
// logits of their own, and the experts see the tokens of all.
//
// Not thread safe: one forward at a time. A token's logits are the same bit for bit whatever else is in the
// batch and however its prompt was cut, because every op keeps that promise.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "device/cuda/memory.h"
#include "device/cuda/stream.h"
#include "dist/cuda/gpu_group.h"
#include "model/model.h"
#include "model/shard.h"
#include "ops/attention/branches.h"
#include "ops/cuda_batch.h"
#include "ops/extend_attention/cuda.h"

namespace fathom::model::cuda {

// The cache's memory: one CacheView a layer, all with the same pages. Movable.
class KvPool {
 public:
  static Result<KvPool> allocate(const KvLayout& layout, int64_t num_pages, int64_t page_size);

  const ops::cuda::CacheView& layer(int64_t index) const { return layers_[static_cast<size_t>(index)]; }
  int64_t num_pages() const { return num_pages_; }
  int64_t bytes() const { return static_cast<int64_t>(buffer_.size()); }
  const device::cuda::DeviceBuffer& buffer() const { return buffer_; }

 private:
  device::cuda::DeviceBuffer buffer_;
  std::vector<ops::cuda::CacheView> layers_;
  int64_t num_pages_ = 0;
};

struct LoadOptions {
  const weights::Checkpoint* checkpoint = nullptr;  // null: random weights (--load-format dummy)
  uint64_t seed = 0;
  ops::Compute compute = ops::Compute::kBF16;
  device::DType kv_dtype = device::DType::kBF16;  // F32, BF16, F8E4M3 or F8E5M2
  bool mla = true;
  // Layers with FP8 weights take FP8 activations, as the checkpoint was trained; needs Hopper, and compute
  // kBF16 (else ignored, as it is for other checkpoints).
  bool fp8_x = false;
  int64_t max_tokens = 4096;  // of one forward, padding included
  int64_t max_logit_rows = 256;
  int64_t max_context = 0;     // 0: the config's
  bool moves_experts = false;  // balance_experts() will be called
  int64_t kept_states = 0;     // hidden states that keep() has room for; with ModelConfig::draft_layers
  std::function<void(int64_t done, int64_t total)> progress;
  // The ranks that share the model, split.world() of them; null: there is one. Must outlive the model.
  // build() meets the others; the group must have posts where the split is of heads alone.
  dist::cuda::GpuGroup* group = nullptr;
  Split split;
};

// One pass of un-absorbed attention: its rows on the host and on the device.
struct ExtendPass {
  std::vector<ops::cuda::ExtendRow> rows;
  const ops::cuda::ExtendRow* device_rows = nullptr;
  int64_t keys = 0;
};

// One step's tokens. Arrays are on the device unless said otherwise.
struct GpuBatch {
  ops::cuda::BatchView view;            // T tokens: prompt tokens [0, Te), output tokens [Te, T)
  ops::cuda::Branches branches;         // of guesses among the output tokens
  const int32_t* token_ids = nullptr;   // [T]
  int64_t extend_tokens = 0;            // Te
  std::vector<ExtendPass> passes;       // host; see plan_passes
  const int32_t* logit_rows = nullptr;  // [R] tokens of the batch, -1: none
  int64_t logit_count = 0;              // R <= max_logit_rows
  const KvPool* cache = nullptr;
  // With stages: four-byte numbers in memory that all ranks have shared, which go from the last stage to all
  // once it has taken over this pass, or nothing. Stages compute different passes at the same time: what a
  // pass needs of the one before must be handed back before it (hand_back()).
  ops::cuda::Matrix hand_back;
  // With groups of requests (Split::dp): the most tokens of any group in this pass, the same on all ranks; T
  // is at most that, and may be 0 where the group only takes its part in the experts.
  int64_t group_tokens = 0;
  // No sequence has more places; 0: the model's max_context. The results do not depend on it.
  int64_t most_places = 0;
};

// Bytes that the first rank of a model with these options takes beside its weights.
int64_t working_bytes(const ModelConfig& config, const LoadOptions& options, const device::cuda::Gpu& gpu);

class Model {
 public:
  // Longest stretch of a sequence's places that one pass takes, and most keys of a pass: passes begin at its
  // multiples.
  static constexpr int64_t kPassPlaces = 4096;

  static Result<std::unique_ptr<Model>> build(const ModelConfig& config, const LoadOptions& options,
                                              device::cuda::Stream& stream, ThreadPool& pool);
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const ModelConfig& config() const;
  const KvLayout& kv_layout() const;
  const LoadReport& report() const;
  int64_t max_tokens() const;
  int64_t max_logit_rows() const;
  int64_t max_context() const;
  // Passes of so many output tokens are quicker where GpuBatch::most_places is at most this; 0: they are not.
  int64_t brief_context(const device::cuda::Gpu& gpu, int64_t tokens) const;

  // Queues the pass. Writes the tokens' cache entries, the hidden states, and logits [R, V] F32, valid until
  // the next forward() or logits().
  float* forward(device::cuda::Stream& stream, const GpuBatch& batch);
  // Logits of further tokens of the last forward; overwrites the others. `rows` [count] on the device.
  float* logits(device::cuda::Stream& stream, const int32_t* rows, int64_t count);
  // Where every call of the two above, and draft(), leave their logits.
  const float* last_logits() const;

  // One pass of the draft layer; needs ModelConfig::draft_layers. Token t is the one after the position
  // batch.view.positions[t], and states[t] says whose hidden state stands there: a row of the last forward
  // (0 ..), or kept_state(i), or draft_state(row of the last draft). Writes its cache entries, its hidden
  // states, and logits [R, V] in the place of forward's. A padding token may have any state, -1 too.
  void draft(device::cuda::Stream& stream, const GpuBatch& batch, const int32_t* states);
  // The cache entries alone, the same bits: of tokens after which nothing is guessed. An entry is what the
  // layer makes of its input before attention, so this costs a small part of draft().
  void draft_entries(device::cuda::Stream& stream, const GpuBatch& batch, const int32_t* states);
  int32_t kept_state(int64_t i) const;
  int32_t draft_state(int64_t row) const;
  // Copies `count` hidden states, from[i] of the last forward to place to[i] of those kept; negative: none.
  // On the last stage.
  void keep(device::cuda::Stream& stream, const int32_t* from, const int32_t* to, int64_t count);

  // Moves routed experts between the sets of ranks so that each has as much to do, as counted since the last
  // time; every rank of the stage between the same two passes. Waits for the stream, and for the others.
  Result<ExpertBalance> balance_experts(device::cuda::Stream& stream);

  // With stages (Split::pp) only the last has logits, hidden states and the draft layer; the others' calls
  // above give nothing. What it makes of them, in memory that all ranks have shared, goes to all stages.
  bool last_stage() const;
  // Of this stage, without the draft layer: the first of the cache's.
  int64_t num_layers() const;
  Result<void> share(const ops::cuda::Matrix& rows);
  void hand_back(device::cuda::Stream& stream, const ops::cuda::Matrix& rows);

 private:
  struct State;
  explicit Model(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// The passes that let rows (key_begin .. merge unset) attend to everything before them: each takes whole
// stretches of kPassPlaces places, as many rows as fit.
std::vector<ExtendPass> plan_passes(const std::vector<ops::cuda::ExtendRow>& rows);

}  // namespace fathom::model::cuda

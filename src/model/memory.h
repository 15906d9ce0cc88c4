// How much memory a model takes, part by part, from its config alone: for `fathom plan`, and for sizing the
// KV pool before anything is loaded.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/shard.h"
#include "ops/linear/linear.h"

namespace fathom::model {

struct MemoryOptions {
  ops::Compute compute = ops::Compute::kBF16;
  device::DType kv_dtype = device::DType::kBF16;
  bool mla = true;
  int64_t max_tokens = 2048;
  int64_t max_logit_rows = 256;
  int64_t max_context = 0;     // 0: the config's
  int64_t scale_rows = 1;      // rows of an FP8 matrix that share the scales of 128 columns; 8 on a GPU
  bool draft_copies = false;   // where copies_for_draft(): on a GPU
  std::optional<Shard> shard;  // of this rank alone; none: the whole model
};

// Whether a GPU keeps a matrix [n, k] of the draft layer a second time, in FP8: the head, or its part
// (ModelConfig::draft_vocab), and what merges its inputs.
bool copies_for_draft(ops::Compute compute, device::DType stored, int64_t n, int64_t k);

struct MemoryPart {
  std::string name;        // "routed experts"
  int64_t parameters = 0;  // as in the checkpoint
  int64_t bytes = 0;       // in memory
};

struct MemoryPlan {
  std::vector<MemoryPart> weights;
  int64_t parameters = 0;         // all of them, MTP layers that do not draft left out
  int64_t active_parameters = 0;  // that one token uses
  int64_t weight_bytes = 0;
  int64_t decode_bytes = 0;        // weights read for one token alone (K of E experts), its KV left out
  int64_t workspace_bytes = 0;     // with the rope table; the ops' own scratch left out
  int64_t kv_bytes_per_token = 0;  // of all layers
};

MemoryPlan plan_memory(const ModelConfig& config, const MemoryOptions& options);

// Says so before an hour of loading, rather than at its end, where weights and workspaces do not fit into the
// `free` bytes of `device`: "this machine", "NVIDIA H100 80GB HBM3".
Result<void> check_memory(int64_t weights, int64_t workspaces, int64_t free, std::string_view device);

// Bytes of the checkpoint's tensors that the model reads, scales left out.
int64_t stored_bytes(const ModelConfig& config);
int64_t stored_bytes(const ModelConfig& config, const Shard& shard);  // that this rank reads

}  // namespace fathom::model

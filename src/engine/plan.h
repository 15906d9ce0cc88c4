// What a model will take on this machine, before anything is loaded: for `fathom plan` and `fathom bench`.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "engine/pool_size.h"
#include "engine/settings.h"
#include "model/memory.h"

namespace fathom::engine {

struct Plan {
  ModelFacts facts;
  model::ModelConfig config;
  model::MemoryPlan memory;  // of one rank, the largest
  int32_t ranks = 1;
  std::string device;  // whose memory the next line counts
  int64_t available_bytes = 0;
  int64_t checkpoint_bytes = 0;  // of the tensors that the model reads
  int64_t sum_bytes = 0;         // that a rank brings to sums over the ranks, for each token
  int64_t gather_bytes = 0;      // of logits that ranks bring together, for each token chosen
  int64_t page_size = 0;
  int32_t max_running = 0;
  Result<PoolSize> pool = PoolSize{};  // or why it does not fit
};

// From config.json alone.
Result<Plan> plan(const Settings& settings);

// Floating-point operations of a prompt's forward pass (2 a multiply-add): every active weight once a token,
// the head for the last token only, and un-absorbed causal attention.
double prefill_flops(const Plan& plan, int64_t prompt_tokens);

// Bytes that one decode step reads: the weights, of the routed experts the share 1 - (1 - K/E)^sequences that
// is active when routing is uniform, and every sequence's KV entries.
double decode_bytes(const Plan& plan, int64_t sequences, double context);

}  // namespace fathom::engine

// What a step of a model computes and reads at least: the floors that `fathom bench` measures against.
// Whether a model fits: layout/layout_plan.h.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "engine/settings.h"
#include "model/memory.h"

namespace fathom::engine {

struct Plan {
  ModelFacts facts;
  model::ModelConfig config;
  model::MemoryPlan memory;  // of one rank that has it all
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

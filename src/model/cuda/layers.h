// The blocks of a layer on the GPU. Attention reads work.normed (or work.rounded_normed) and leaves its
// result in work.delta.
#pragma once

#include "device/cuda/branch.h"
#include "model/cuda/model.h"
#include "model/cuda/weights.h"
#include "model/cuda/workspace.h"
#include "ops/moe/cuda.h"
#include "ops/rope/cuda.h"

namespace fathom::model::cuda {

struct Step {
  device::cuda::Stream& stream;
  const ModelConfig& config;
  const Shard& shard;
  const Workspace& work;
  const ops::cuda::RopeView& rope;
  float softmax_scale;
  bool mla;
  int64_t decode_tokens;  // most output tokens of one piece
  int64_t max_context;
  const GpuBatch& batch;
  device::cuda::Branch& beside;  // for what need not wait
};

// Rows as they are and, where FP8 projections take FP8 activations, rounded.
struct Activations {
  ops::cuda::Matrix plain;
  ops::cuda::QuantizedMatrix rounded;
};

void attention_block(const Step& step, const MlaWeights& weights, const ops::cuda::CacheView& cache);
// The tokens' cache entries alone, as attention_block() writes them.
void write_entries(const Step& step, const MlaWeights& weights, const ops::cuda::CacheView& cache);
// On `stream`, which is the step's or one beside it.
void dense_block(const Step& step, device::cuda::Stream& stream, const DenseWeights& weights,
                 const Activations& x, const ops::cuda::Matrix& y);
// x [t, H]; a token of position -1 is padding. What is left to do: to add the experts' answers up, before
// anything else of the step.
ops::cuda::ExpertCombineArgs moe_block(const Step& step, const MoeWeights& weights, const Activations& x,
                                       const int32_t* positions);

}  // namespace fathom::model::cuda

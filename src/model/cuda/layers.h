// The blocks of a layer on the GPU. Attention reads work.normed and leaves its result in work.delta.
#pragma once

#include "device/cuda/branch.h"
#include "model/cuda/model.h"
#include "model/cuda/weights.h"
#include "model/cuda/workspace.h"
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

void attention_block(const Step& step, const MlaWeights& weights, const ops::cuda::CacheView& cache);
// On `stream`, which is the step's or one beside it.
void dense_block(const Step& step, device::cuda::Stream& stream, const DenseWeights& weights,
                 const ops::cuda::Matrix& x, const ops::cuda::Matrix& y);
// x [t, H] -> y [t, H]; a token of position -1 is padding.
void moe_block(const Step& step, const MoeWeights& weights, const ops::cuda::Matrix& x,
               const int32_t* positions, const ops::cuda::Matrix& y);

}  // namespace fathom::model::cuda

// The blocks of a layer. Each reads what the model's forward put into the workspace and leaves its result
// there.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "device/launch.h"
#include "device/tensor.h"
#include "model/config.h"
#include "model/model.h"
#include "model/weights.h"
#include "model/workspace.h"
#include "ops/embedding/embedding.h"
#include "ops/extend_attention/extend_attention.h"
#include "ops/gate/gate.h"
#include "ops/kv_write/kv_write.h"
#include "ops/mha_attention/mha_attention.h"
#include "ops/mla_decode/mla_decode.h"
#include "ops/rms_norm/rms_norm.h"
#include "ops/rope/rope.h"
#include "ops/swiglu/swiglu.h"

namespace fathom::model {

// The implementations chosen for a target and the products' activations, but for those that depend on a
// weight's type (those are kept with the weight).
struct Ops {
  Ops(const device::Target& target, ops::Compute compute);

  ops::EmbeddingFunction embedding;
  ops::RmsNormFunction rms_norm;
  ops::RopeFunction rope;
  ops::LatentWriteFunction latent_write;
  ops::PlainWriteFunction plain_write;
  ops::ExtendAttentionFunction extend_attention;
  ops::MlaDecodeFunction mla_decode;
  ops::MhaAttentionFunction mha_attention;
  ops::GateFunction gate;
  ops::SwigluFunction swiglu;
};

// Output tokens [first, first + tokens) of the batch; the rows' `first` counts from there.
struct DecodePiece {
  int64_t first = 0;
  int64_t tokens = 0;
  std::vector<ops::AttentionRow> rows;
};
// A batch's decode rows in pieces. Keeps its memory from one batch to the next.
class DecodePieces {
 public:
  // Of at most `limit` tokens; a long row is cut, for its tokens are causal. Valid until the next call.
  std::span<const DecodePiece> cut(std::span<const ops::AttentionRow> rows, int64_t limit);

 private:
  std::vector<DecodePiece> pieces_;
};

// What the blocks of a forward pass share.
struct Step {
  device::Launch& launch;
  const ModelConfig& config;
  const Shard& shard;
  const Ops& ops;
  Workspace& work;
  const ops::RopeTable& rope;
  float softmax_scale;
  bool mla;
  const ForwardBatch& batch;
  int64_t extend_tokens;  // Te
  std::span<const DecodePiece> decode;
};

// work.normed [T, H] -> work.delta [T, H]; writes the cache. Of a shard, delta is the rank's part of a sum
// over the ranks.
void attention_block(const Step& step, const MlaWeights& weights, const ops::KvCache& cache,
                     ops::KeptLayer kept);
// The same for a dense layer and for a layer of experts.
void dense_block(const Step& step, const DenseWeights& weights);
// x [Ta, H] -> y [Ta, H]: of the tokens of all groups.y is the rank's part of a sum over the stage's ranks.
// Counts what each expert gets.
void moe_block(const Step& step, MoeWeights& weights, const device::Tensor& x, const device::Tensor& y);

}  // namespace fathom::model

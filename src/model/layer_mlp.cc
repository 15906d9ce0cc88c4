// The dense MLP, and the mixture of routed and shared experts (DeepSeekMoE, arXiv:2401.06066).
#include <algorithm>
#include <bit>

#include "model/layers.h"

namespace fathom::model {

namespace {

using device::DType;
using device::Tensor;

// Up to so many tokens, experts wait for memory and the shared ones are computed among them.
constexpr int64_t kFewTokens = 32;

// The first rows * columns values of a workspace tensor as a dense matrix: a narrower MLP uses the memory of
// the widest.
Tensor dense(const Tensor& memory, int64_t rows, int64_t columns) {
  return Tensor(memory.data, DType::kF32, {rows, columns});
}

// x [t, H] -> y [t, H]
void mlp(const Step& step, const DenseWeights& weights, const Tensor& x, const Tensor& y) {
  const int64_t t = x.dim(0);
  const int64_t inner = weights.down.weight.k;
  for (int64_t begin = 0; begin < t; begin += Workspace::kMlpTokens) {
    const int64_t end = std::min(t, begin + Workspace::kMlpTokens);
    const Tensor gate_up = dense(step.work.mlp_gate_up, end - begin, 2 * inner);
    const Tensor activated = dense(step.work.mlp_inner, end - begin, inner);
    weights.gate_up(step.launch, x.rows(begin, end), gate_up);
    step.ops.swiglu(step.launch, {.gate_up = gate_up, .y = activated});
    weights.down(step.launch, activated, y.rows(begin, end));
  }
}

// Experts' numbers to their slots on this rank, or -1. Of an expert's copies a token takes the one that its
// own logits say: all ranks agree, and it is the same whatever else is in the batch.
void keep_own(MoeWeights& weights, const Tensor& logits, const Tensor& ids) {
  const ExpertSlots& slots = weights.slots;
  for (int64_t t = 0; t < ids.dim(0); ++t) {
    const uint32_t dice = std::bit_cast<uint32_t>(logits.row<const float>(t)[0]) * 2654435761U >> 8;
    auto* id = ids.row<int32_t>(t);
    for (int64_t k = 0; k < ids.dim(1); ++k) {
      ++weights.load[static_cast<size_t>(id[k])];
      const int32_t copies = slots.copies(id[k]);
      id[k] = slots.slot(id[k], static_cast<int32_t>(dice % static_cast<uint32_t>(copies)));
    }
  }
}

}  // namespace

void dense_block(const Step& step, const DenseWeights& weights) {
  const int64_t t = step.batch.tokens;
  mlp(step, weights, step.work.normed.rows(0, t), step.work.delta.rows(0, t));
}

void moe_block(const Step& step, MoeWeights& weights, const Tensor& x, const Tensor& y) {
  const int64_t t = x.dim(0);
  Workspace& work = step.work;
  const Tensor logits = work.gate_logits.rows(0, t);
  const Tensor ids = work.expert_ids.rows(0, t);
  const Tensor expert_weights = work.expert_weights.rows(0, t);
  weights.gate(step.launch, x, logits);
  step.ops.gate(step.launch, {.logits = logits,
                              .bias = weights.bias,
                              .params = step.config.gate,
                              .ids = ids,
                              .weights = expert_weights});
  if (!weights.load.empty()) keep_own(weights, logits, ids);
  ops::MoeArgs args{.x = x,
                    .ids = ids,
                    .weights = expert_weights,
                    .gate_up = weights.gate_up,
                    .down = weights.down,
                    .y = y};
  // The shared experts come first in either way: the same sums, bit for bit.
  if (step.config.num_shared_experts > 0 && t <= kFewTokens) {
    args.shared_gate_up = &weights.shared.gate_up.weight;
    args.shared_down = &weights.shared.down.weight;
  } else if (step.config.num_shared_experts > 0) {
    mlp(step, weights.shared, x, y);
    args.accumulate = true;
  }
  weights.run(step.launch, args);
}

}  // namespace fathom::model

#include "model/cuda/layers.h"
#include "ops/gate/cuda.h"
#include "ops/gather_rows/cuda.h"
#include "ops/moe/cuda.h"

namespace fathom::model::cuda {

using ops::cuda::Matrix;

namespace {

// From so many rows an expert on, tokens are copied into the experts' order first: the tensor copy engine
// cannot gather rows.
constexpr int64_t kSortedRows = 65;
// For up to so many tokens the shared experts are computed beside the routed ones: neither fills the GPU.
constexpr int64_t kBesideTokens = 256;

}  // namespace

void dense_block(const Step& step, device::cuda::Stream& stream, const DenseWeights& weights, const Matrix& x,
                 const Matrix& y) {
  const int64_t t = x.rows;
  const Matrix& widest = step.work.inner;
  const Matrix inner(widest.data, widest.dtype, t, weights.down.k);
  ops::cuda::linear(stream, {.x = x, .y = inner, .weight = &weights.gate_up, .swiglu = true});
  ops::cuda::linear(stream, {.x = inner, .y = y, .weight = &weights.down});
}

void moe_block(const Step& step, const MoeWeights& weights, const Matrix& x, const int32_t* positions,
               const Matrix& y) {
  const ModelConfig& c = step.config;
  const Workspace& work = step.work;
  const int64_t t = x.rows;
  const int64_t copies = t * c.gate.top_k;
  const auto experts = static_cast<int64_t>(step.shard.experts.size());
  Matrix shared;
  const bool beside = c.num_shared_experts > 0 && t <= kBesideTokens;
  if (c.num_shared_experts > 0) {
    shared = work.shared_out.first_rows(t);
    dense_block(step, beside ? step.beside.fork(step.stream) : step.stream, weights.shared, x, shared);
  }
  const Matrix logits(work.gate_logits, device::DType::kF32, t, c.num_experts);
  ops::cuda::linear(step.stream, {.x = x, .y = logits, .weight = &weights.gate});
  ops::cuda::gate(step.stream, {.logits = work.gate_logits,
                                .bias = weights.bias,
                                .params = c.gate,
                                .tokens = t,
                                .ids = work.expert_ids,
                                .weights = work.expert_weights});
  ops::cuda::expert_sort(step.stream, {.ids = work.expert_ids,
                                       .positions = positions,
                                       .slots = weights.slots,
                                       .tokens = t,
                                       .experts = static_cast<int32_t>(experts),
                                       .top_k = c.gate.top_k,
                                       .sort = work.sort,
                                       .workspace = work.sort_scratch});

  ops::cuda::GroupedLinearArgs up;
  up.linear = {
      .x = x, .y = work.expert_inner.first_rows(copies), .weight = &weights.experts.gate_up, .swiglu = true};
  up.offsets = work.sort.offsets;
  up.gather = work.sort.tokens;
  up.max_rows = copies;
  if (copies >= kSortedRows * c.num_experts) {
    const Matrix sorted = work.expert_in.first_rows(copies);
    ops::cuda::gather_rows(
        step.stream, {.x = x, .y = sorted, .ids = work.sort.tokens, .count = work.sort.offsets + experts});
    up.linear.x = sorted;
    up.gather = nullptr;
  }
  ops::cuda::grouped_linear(step.stream, up);
  ops::cuda::GroupedLinearArgs down;
  down.linear = {.x = work.expert_inner.first_rows(copies),
                 .y = work.expert_out.first_rows(copies),
                 .weight = &weights.experts.down};
  down.offsets = work.sort.offsets;
  down.max_rows = copies;
  ops::cuda::grouped_linear(step.stream, down);

  if (beside) step.beside.join(step.stream);
  ops::cuda::expert_combine(step.stream, {.rows = work.expert_out.first_rows(copies),
                                          .weights = work.expert_weights,
                                          .places = work.sort.places,
                                          .positions = positions,
                                          .top_k = c.gate.top_k,
                                          .shared = shared,
                                          .y = y});
}

}  // namespace fathom::model::cuda

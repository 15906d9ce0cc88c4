#include "base/math.h"
#include "model/cuda/layers.h"
#include "ops/gather_rows/cuda.h"
#include "ops/moe/cuda.h"
#include "ops/quantize/cuda.h"

namespace fathom::model::cuda {

using ops::cuda::Matrix;

namespace {

// From so many rows an expert on, tokens are copied into the experts' order first: the tensor copy engine
// gathers rows one by one, if at all.
constexpr int64_t kSortedRows = 65;
constexpr int64_t kSortedFp8Rows = 17;
// For up to so many tokens the shared experts are computed beside the routed ones: neither fills the GPU. For
// up to kMostBesideRows their products are in the same launches.
constexpr int64_t kBesideTokens = 256;

// The first columns of memory for wider rows, rows close together.
Workspace::Rounded narrower(Workspace::Rounded rows, int64_t columns) {
  rows.columns = columns;
  rows.stride = round_up<int64_t>(columns, 16);
  return rows;
}

// Whether the shared experts' products can be in the routed ones' launches: the inner rows of both are
// rounded together.
bool goes_together(const Step& step, const MoeWeights& weights, int64_t tokens) {
  const ops::cuda::Weight& shared = weights.shared.down;
  const ops::cuda::Weight& routed = weights.experts.down;
  return step.config.num_shared_experts > 0 && tokens <= ops::cuda::kMostBesideRows &&
         step.stream.gpu().hopper() && shared.dtype == routed.dtype && shared.fp8_x == routed.fp8_x &&
         (!shared.fp8_x || shared.k == routed.k);
}

// The gate: where each token's copies go, into the workspace. True where one launch did it all
// (gate_product_and_sort).
bool choose_experts(const Step& step, const MoeWeights& weights, const Activations& x,
                    const int32_t* positions) {
  const ModelConfig& c = step.config;
  const Workspace& work = step.work;
  const int64_t t = x.plain.rows;
  const Matrix logits(work.gate_logits, device::DType::kF32, t, c.num_experts);
  const ops::cuda::LinearArgs product{.x = x.plain, .y = logits, .weight = &weights.gate};
  const ops::cuda::GateArgs gate{.logits = work.gate_logits,
                                 .bias = weights.bias,
                                 .params = c.gate,
                                 .tokens = t,
                                 .ids = work.expert_ids,
                                 .weights = work.expert_weights};
  const bool placed = weights.places.first != nullptr;
  const ops::cuda::ExpertSortArgs sort{.ids = work.expert_ids,
                                       .positions = positions,
                                       .slots = placed ? nullptr : weights.slots,
                                       .tokens = t,
                                       .experts = static_cast<int32_t>(step.shard.experts.size()),
                                       .top_k = c.gate.top_k,
                                       .sort = work.sort,
                                       .workspace = work.sort_scratch};
  if (!placed) return ops::cuda::gate_product_and_sort(step.stream, product, gate, sort, work.gate_scratch);
  ops::cuda::linear(step.stream, product);
  ops::cuda::gate(step.stream, gate);
  place_experts(step.stream, {.logits = work.gate_logits,
                              .positions = positions,
                              .places = weights.places,
                              .tokens = t,
                              .experts = static_cast<int32_t>(c.num_experts),
                              .top_k = c.gate.top_k,
                              .ids = work.expert_ids});
  ops::cuda::expert_sort(step.stream, sort);
  return false;
}

}  // namespace

void dense_block(const Step& step, device::cuda::Stream& stream, const DenseWeights& weights,
                 const Activations& x, const Matrix& y) {
  const int64_t t = x.plain.rows;
  const Workspace& work = step.work;
  const int64_t width = weights.down.k;
  const Matrix inner(work.inner.data, work.inner.dtype, t, width);
  ops::cuda::linear(stream,
                    {.x = x.plain, .y = inner, .weight = &weights.gate_up, .swiglu = true, .x8 = x.rounded});
  Workspace::Rounded rounded;
  if (weights.down.fp8_x) {
    rounded = narrower(work.rounded_inner.first_rows(t), width);
    ops::cuda::quantize(stream, {.x = inner, .y = rounded});
  }
  ops::cuda::linear(stream, {.x = inner, .y = y, .weight = &weights.down, .x8 = rounded});
}

ops::cuda::ExpertCombineArgs moe_block(const Step& step, const MoeWeights& weights, const Activations& x,
                                       const int32_t* positions) {
  const ModelConfig& c = step.config;
  const Workspace& work = step.work;
  const int64_t t = x.plain.rows;
  const int64_t copies = t * c.gate.top_k;
  const auto experts = static_cast<int64_t>(step.shard.experts.size());
  Matrix shared;
  if (c.num_shared_experts > 0) shared = work.shared_out.first_rows(t);
  const bool together = goes_together(step, weights, t);
  const bool beside = c.num_shared_experts > 0 && !together && t <= kBesideTokens;
  if (c.num_shared_experts > 0 && !together) {
    dense_block(step, beside ? step.beside.fork(step.stream) : step.stream, weights.shared, x, shared);
  }
  const bool early = choose_experts(step, weights, x, positions);

  ops::cuda::GroupedLinearArgs up;
  up.linear = {.x = x.plain,
               .y = work.expert_inner.first_rows(copies),
               .weight = &weights.experts.gate_up,
               .swiglu = true,
               .x8 = x.rounded};
  up.offsets = work.sort.offsets;
  up.gather = work.sort.tokens;
  up.max_rows = copies;
  const int32_t* sorted_rows = work.sort.offsets + experts;
  if (weights.experts.gate_up.fp8_x) {
    if (copies >= kSortedFp8Rows * c.num_experts) {
      const Workspace::Rounded sorted = work.rounded_expert_in.first_rows(copies);
      ops::cuda::gather_quantized(
          step.stream, {.x = x.rounded, .y = sorted, .ids = work.sort.tokens, .rows = sorted_rows});
      up.linear.x8 = sorted;
      up.gather = nullptr;
    }
  } else if (copies >= kSortedRows * c.num_experts && work.expert_in.data != nullptr) {
    const Matrix sorted = work.expert_in.first_rows(copies);
    ops::cuda::gather_rows(step.stream,
                           {.x = x.plain, .y = sorted, .ids = work.sort.tokens, .count = sorted_rows});
    up.linear.x = sorted;
    up.gather = nullptr;
  }
  const bool rounds = weights.experts.down.fp8_x;
  const Matrix shared_inner = rounds && together
                                  ? work.expert_inner.row_range(copies, copies + t)
                                  : Matrix(work.inner.data, work.inner.dtype, t, weights.shared.down.k);
  const ops::cuda::LinearArgs shared_up{
      .x = x.plain, .y = shared_inner, .weight = &weights.shared.gate_up, .swiglu = true, .x8 = x.rounded};
  if (together) {
    up.beside = &shared_up;
    up.beside_early = early;
  }
  ops::cuda::grouped_linear(step.stream, up);
  ops::cuda::GroupedLinearArgs down;
  down.linear = {.x = work.expert_inner.first_rows(copies),
                 .y = work.expert_out.first_rows(copies),
                 .weight = &weights.experts.down};
  ops::cuda::LinearArgs shared_down{.x = shared_inner, .y = shared, .weight = &weights.shared.down};
  if (rounds) {
    const int64_t all = copies + (together ? t : 0);
    const Workspace::Rounded rounded = work.rounded_expert_inner.first_rows(all);
    // Few rows are rounded wherever they are: those of no expert are nobody's.
    ops::cuda::quantize(
        step.stream,
        {.x = work.expert_inner.first_rows(all), .y = rounded, .rows = together ? nullptr : sorted_rows});
    down.linear.x8 = rounded.first_rows(copies);
    if (together) shared_down.x8 = rounded.row_range(copies, all);
  }
  if (together) down.beside = &shared_down;
  down.offsets = work.sort.offsets;
  // As `up` has them: whoever wrote them has ended when that lets the next kernel start. With more tokens
  // there are kernels beside these that early weights would hold up.
  down.offsets_early = together;
  down.max_rows = copies;
  ops::cuda::grouped_linear(step.stream, down);

  if (beside) step.beside.join(step.stream);
  return {.rows = work.expert_out.first_rows(copies),
          .weights = work.expert_weights,
          .places = work.sort.places,
          .positions = positions,
          .top_k = c.gate.top_k,
          .shared = shared,
          .y = {}};
}

}  // namespace fathom::model::cuda

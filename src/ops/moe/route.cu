#include "base/check.h"
#include "device/cuda/launch_kernel.h"
#include "ops/gate/choose.cuh"
#include "ops/moe/gate_product.h"
#include "ops/moe/sort_few.cuh"

namespace fathom::ops::cuda {
namespace {

// One token.
template <int kItems>
__global__ void __launch_bounds__(kMaxGateThreads) route_kernel(GateArgs gate, ExpertSortArgs sort) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();
  extern __shared__ float shared[];
  auto* experts =
      reinterpret_cast<int32_t*>(shared + gate_words(gate.params));  // [K] of the copies; -1: left out
  choose_experts<kItems>(gate.logits, gate.bias, gate.params, shared, gate.ids, gate.weights);
  __syncthreads();
  const bool padding = sort.positions != nullptr && sort.positions[0] < 0;
  for (auto k = static_cast<int32_t>(threadIdx.x); k < sort.top_k; k += static_cast<int32_t>(blockDim.x)) {
    const int32_t id = gate.ids[k];
    experts[k] = padding ? -1 : sort.slots != nullptr ? sort.slots[id] : id;
  }
  __syncthreads();
  sort_one(experts, sort);
}

// Checks what choosing and sorting together need.
void check_both(const GateArgs& gate, const ExpertSortArgs& sort) {
  check_gate(gate);
  FATHOM_CHECK(sort.ids == gate.ids && sort.tokens == gate.tokens && sort.top_k == gate.params.top_k,
               "the sort is of other choices: {} tokens of {}, top {} of {}", sort.tokens, gate.tokens,
               sort.top_k, gate.params.top_k);
  FATHOM_CHECK(0 < sort.experts && sort.experts <= gate.params.experts, "{} of {} experts", sort.experts,
               gate.params.experts);
}

}  // namespace

void gate_and_sort(device::cuda::Stream& stream, const GateArgs& gate_args, const ExpertSortArgs& sort) {
  check_both(gate_args, sort);
  if (gate_args.tokens != 1) {
    gate(stream, gate_args);
    return expert_sort(stream, sort);
  }
  with_gate_items(gate_args.params, [&](auto items) {
    device::cuda::launch_early(stream, route_kernel<decltype(items)::value>, 1U,
                               static_cast<unsigned>(gate_threads(gate_args.params)),
                               static_cast<int>(sizeof(float)) * (gate_words(gate_args.params) + sort.top_k),
                               gate_args, sort);
  });
  stream.launched("gate_and_sort");
}

int64_t gate_product_workspace(int32_t experts) {
  return int64_t{kMostGateProductTokens} * experts * static_cast<int64_t>(sizeof(uint64_t));
}

bool gate_product_and_sort(device::cuda::Stream& stream, const LinearArgs& product, const GateArgs& gate_args,
                           const ExpertSortArgs& sort, uint64_t* workspace) {
  check_both(gate_args, sort);
  const Matrix& y = product.y;
  FATHOM_CHECK(y.data == gate_args.logits && y.dtype == device::DType::kF32 && y.rows == gate_args.tokens &&
                   y.columns == gate_args.params.experts && y.stride == y.columns && !product.accumulate &&
                   !product.swiglu,
               "the product [{}, {}] is not the logits of {} tokens and {} experts", y.rows, y.columns,
               gate_args.tokens, gate_args.params.experts);
  FATHOM_CHECK(
      product.x.rows == y.rows && product.x.columns == product.weight->k && product.weight->n == y.columns,
      "x [{}, {}], y [{}, {}], weight [{}, {}]", product.x.rows, product.x.columns, y.rows, y.columns,
      product.weight->n, product.weight->k);
  if (gate_product_sm90(stream, product, gate_args, sort, workspace)) return true;
  linear(stream, product);
  gate_and_sort(stream, gate_args, sort);
  return false;
}

}  // namespace fathom::ops::cuda

#include "base/check.h"
#include "device/cuda/launch_kernel.h"
#include "ops/gate/choose.cuh"
#include "ops/moe/cuda.h"

namespace fathom::ops::cuda {
namespace {

// One token: its experts differ, so that a copy's place is how many of the others' experts come before its
// own.
template <int kItems>
__global__ void __launch_bounds__(kMaxGateThreads) route_kernel(GateArgs gate, ExpertSortArgs sort) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();
  extern __shared__ float shared[];
  auto* experts =
      reinterpret_cast<int32_t*>(shared + gate_words(gate.params));  // [K] of the copies; -1: left out
  choose_experts<kItems>(gate.logits, gate.bias, gate.params, shared, gate.ids, gate.weights);
  __syncthreads();
  const auto thread = static_cast<int32_t>(threadIdx.x), threads = static_cast<int32_t>(blockDim.x);
  const bool padding = sort.positions != nullptr && sort.positions[0] < 0;
  for (int32_t k = thread; k < sort.top_k; k += threads) {
    const int32_t id = gate.ids[k];
    experts[k] = padding ? -1 : sort.slots != nullptr ? sort.slots[id] : id;
  }
  __syncthreads();
  const auto before = [&](int32_t expert) {
    int32_t count = 0;
    for (int32_t k = 0; k < sort.top_k; ++k)
      count += static_cast<int32_t>(experts[k] >= 0 && experts[k] < expert);
    return count;
  };
  for (int32_t e = thread; e <= sort.experts; e += threads) sort.sort.offsets[e] = before(e);
  for (int32_t k = thread; k < sort.top_k; k += threads) {
    const int32_t place = experts[k] >= 0 ? before(experts[k]) : -1;
    sort.sort.places[k] = place;
    if (place >= 0) sort.sort.tokens[place] = 0;
  }
}

}  // namespace

void gate_and_sort(device::cuda::Stream& stream, const GateArgs& gate_args, const ExpertSortArgs& sort) {
  FATHOM_CHECK(
      sort.ids == gate_args.ids && sort.tokens == gate_args.tokens && sort.top_k == gate_args.params.top_k,
      "the sort is of other choices: {} tokens of {}, top {} of {}", sort.tokens, gate_args.tokens,
      sort.top_k, gate_args.params.top_k);
  if (gate_args.tokens != 1) {
    gate(stream, gate_args);
    return expert_sort(stream, sort);
  }
  check_gate(gate_args);
  FATHOM_CHECK(0 < sort.experts && sort.experts <= kMaxGateExperts, "{} experts", sort.experts);
  with_gate_items(gate_args.params, [&](auto items) {
    device::cuda::launch_early(stream, route_kernel<decltype(items)::value>, 1U,
                               static_cast<unsigned>(gate_threads(gate_args.params)),
                               static_cast<int>(sizeof(float)) * (gate_words(gate_args.params) + sort.top_k),
                               gate_args, sort);
  });
  stream.launched("gate_and_sort");
}

}  // namespace fathom::ops::cuda

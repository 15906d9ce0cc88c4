#include "ops/gate/choose.cuh"

namespace fathom::ops::cuda {
namespace {

// A CTA a token.
template <int kItems>
__global__ void __launch_bounds__(kMaxGateThreads)
    gate_kernel(const float* logits, const float* bias, GateParams params, int32_t* ids, float* weights) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();
  extern __shared__ float shared[];
  const int64_t t = blockIdx.x;
  choose_experts<kItems>(logits + t * params.experts, bias, params, shared, ids + t * params.top_k,
                         weights + t * params.top_k);
}

}  // namespace

void gate(device::cuda::Stream& stream, const GateArgs& args) {
  check_gate(args);
  if (args.tokens == 0) return;
  with_gate_items(args.params, [&](auto items) {
    device::cuda::launch_early(stream, gate_kernel<decltype(items)::value>,
                               static_cast<unsigned>(args.tokens),
                               static_cast<unsigned>(gate_threads(args.params)),
                               static_cast<int>(sizeof(float)) * gate_words(args.params), args.logits,
                               args.bias, args.params, args.ids, args.weights);
  });
  stream.launched("gate");
}

}  // namespace fathom::ops::cuda

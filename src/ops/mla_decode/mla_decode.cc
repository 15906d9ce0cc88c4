#include "ops/mla_decode/mla_decode.h"

#include "ops/implementation.h"
#include "ops/mla_decode/blocked.h"

namespace fathom::ops {
namespace {

// Queries and softmax weights are rounded to bf16, as activations are before products there.
void mla_decode_avx512_bf16(device::Launch& launch, const MlaDecodeArgs& args) {
  const bool pairs = args.cache.dtype == device::DType::kBF16 && args.q.dim(2) % 2 == 0;
  mla_decode_blocked(launch, args, pairs ? kFlashAvx512Bf16 : kFlashAvx512);
}
void mla_decode_avx512(device::Launch& launch, const MlaDecodeArgs& args) {
  mla_decode_blocked(launch, args, kFlashAvx512);
}
void mla_decode_avx2(device::Launch& launch, const MlaDecodeArgs& args) {
  mla_decode_blocked(launch, args, kFlashAvx2);
}

// The first rounds.
constexpr Implementation<MlaDecodeFunction> kMlaDecode[] = {
    {"avx512-bf16", device::Isa::kAvx512Bf16, mla_decode_avx512_bf16},
    {"avx512", device::Isa::kAvx512, mla_decode_avx512},
    {"avx2", device::Isa::kAvx2, mla_decode_avx2},
    {"reference", device::Isa::kReference, mla_decode_reference},
};

}  // namespace

MlaDecodeFunction choose_mla_decode(const device::Target& target, Compute compute) {
  const std::span all(kMlaDecode);
  return choose<MlaDecodeFunction>(all.subspan(compute == Compute::kBF16 ? 0 : 1), target).run;
}

}  // namespace fathom::ops

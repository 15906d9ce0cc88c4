#include "ops/mha_attention/mha_attention.h"

#include "ops/implementation.h"
#include "ops/mha_attention/blocked.h"

namespace fathom::ops {
namespace {

// Products of bf16 pairs where the entries are bf16; queries and weights are then rounded to bf16 too.
void mha_attention_avx512bf16(device::Launch& launch, const MhaAttentionArgs& args) {
  const bool pairs = args.cache.dtype == device::DType::kBF16 && args.q.dim(2) % 2 == 0;
  mha_attention_blocked(launch, args, pairs ? kFlashAvx512Bf16 : kFlashAvx512);
}
void mha_attention_avx512(device::Launch& launch, const MhaAttentionArgs& args) {
  mha_attention_blocked(launch, args, kFlashAvx512);
}
void mha_attention_avx2(device::Launch& launch, const MhaAttentionArgs& args) {
  mha_attention_blocked(launch, args, kFlashAvx2);
}

constexpr Implementation<MhaAttentionFunction> kMhaAttention[] = {
    {"avx512-bf16", device::Isa::kAvx512Bf16, mha_attention_avx512bf16},
    {"avx512", device::Isa::kAvx512, mha_attention_avx512},
    {"avx2", device::Isa::kAvx2, mha_attention_avx2},
    {"reference", device::Isa::kReference, mha_attention_reference},
};

}  // namespace

MhaAttentionFunction choose_mha_attention(const device::Target& target) {
  return choose<MhaAttentionFunction>(kMhaAttention, target).run;
}

}  // namespace fathom::ops

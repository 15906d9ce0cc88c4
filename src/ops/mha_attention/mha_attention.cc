#include "ops/mha_attention/mha_attention.h"

#include "ops/implementation.h"
#include "ops/mha_attention/blocked.h"

namespace fathom::ops {
namespace {

void mha_attention_avx512(device::Launch& launch, const MhaAttentionArgs& args) {
  mha_attention_blocked(launch, args, kFlashAvx512);
}
void mha_attention_avx2(device::Launch& launch, const MhaAttentionArgs& args) {
  mha_attention_blocked(launch, args, kFlashAvx2);
}

constexpr Implementation<MhaAttentionFunction> kMhaAttention[] = {
    {"avx512", device::Isa::kAvx512, mha_attention_avx512},
    {"avx2", device::Isa::kAvx2, mha_attention_avx2},
    {"reference", device::Isa::kReference, mha_attention_reference},
};

}  // namespace

MhaAttentionFunction choose_mha_attention(const device::Target& target) {
  return choose<MhaAttentionFunction>(kMhaAttention, target).run;
}

}  // namespace fathom::ops

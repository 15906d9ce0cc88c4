#include "ops/extend_attention/extend_attention.h"

#include "ops/extend_attention/blocked.h"
#include "ops/implementation.h"

namespace fathom::ops {
namespace {

void extend_attention_avx512(device::Launch& launch, const ExtendAttentionArgs& args) {
  extend_attention_blocked(launch, args, kFlashAvx512);
}
void extend_attention_avx2(device::Launch& launch, const ExtendAttentionArgs& args) {
  extend_attention_blocked(launch, args, kFlashAvx2);
}

constexpr Implementation<ExtendAttentionFunction> kExtendAttention[] = {
    {"avx512", device::Isa::kAvx512, extend_attention_avx512},
    {"avx2", device::Isa::kAvx2, extend_attention_avx2},
    {"reference", device::Isa::kReference, extend_attention_reference},
};

}  // namespace

ExtendAttentionFunction choose_extend_attention(const device::Target& target) {
  return choose<ExtendAttentionFunction>(kExtendAttention, target).run;
}

}  // namespace fathom::ops

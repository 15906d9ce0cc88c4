#include "ops/mha_attention/mha_attention.h"

#include "ops/implementation.h"

namespace fathom::ops {
namespace {

constexpr Implementation<MhaAttentionFunction> kMhaAttention[] = {
    {"reference", device::Isa::kReference, mha_attention_reference},
};

}  // namespace

MhaAttentionFunction choose_mha_attention(const device::Target& target) {
  return choose<MhaAttentionFunction>(kMhaAttention, target).run;
}

}  // namespace fathom::ops

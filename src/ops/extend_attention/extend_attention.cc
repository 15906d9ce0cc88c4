#include "ops/extend_attention/extend_attention.h"

#include "ops/implementation.h"

namespace fathom::ops {
namespace {

constexpr Implementation<ExtendAttentionFunction> kExtendAttention[] = {
    {"reference", device::Isa::kReference, extend_attention_reference},
};

}  // namespace

ExtendAttentionFunction choose_extend_attention(const device::Target& target) {
  return choose<ExtendAttentionFunction>(kExtendAttention, target).run;
}

}  // namespace fathom::ops

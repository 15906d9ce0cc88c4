#include "ops/mla_decode/mla_decode.h"

#include "ops/implementation.h"

namespace fathom::ops {
namespace {

constexpr Implementation<MlaDecodeFunction> kMlaDecode[] = {
    {"reference", device::Isa::kReference, mla_decode_reference},
};

}  // namespace

MlaDecodeFunction choose_mla_decode(const device::Target& target) {
  return choose<MlaDecodeFunction>(kMlaDecode, target).run;
}

}  // namespace fathom::ops

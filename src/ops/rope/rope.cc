#include "ops/rope/rope.h"

#include "ops/implementation.h"

namespace fathom::ops {
namespace {

constexpr Implementation<RopeFunction> kRope[] = {
    {"reference", device::Isa::kReference, rope_reference},
};

}  // namespace

RopeFunction choose_rope(const device::Target& target) {
  return choose<RopeFunction>(kRope, target).run;
}

}  // namespace fathom::ops

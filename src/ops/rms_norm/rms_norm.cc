#include "ops/rms_norm/rms_norm.h"

#include "ops/implementation.h"

namespace fathom::ops {
namespace {

constexpr Implementation<RmsNormFunction> kRmsNorm[] = {
    {"reference", device::Isa::kReference, rms_norm_reference},
};

}  // namespace

RmsNormFunction choose_rms_norm(const device::Target& target) {
  return choose<RmsNormFunction>(kRmsNorm, target).run;
}

}  // namespace fathom::ops

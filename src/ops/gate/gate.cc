#include "ops/gate/gate.h"

#include "ops/implementation.h"

namespace fathom::ops {
namespace {

constexpr Implementation<GateFunction> kGate[] = {
    {"reference", device::Isa::kReference, gate_reference},
};

}  // namespace

GateFunction choose_gate(const device::Target& target) {
  return choose<GateFunction>(kGate, target).run;
}

}  // namespace fathom::ops

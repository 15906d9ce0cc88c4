// What every implementation of the MoE op requires of its arguments.
#pragma once

#include "ops/moe/moe.h"

namespace fathom::ops {

inline void check_moe(const MoeArgs& args) {
  FATHOM_CHECK(!args.gate_up.empty() && args.gate_up.size() == args.down.size(), "{} gate_up, {} down",
               args.gate_up.size(), args.down.size());
  const PackedLinear& gate_up = args.gate_up[0];
  const PackedLinear& down = args.down[0];
  FATHOM_CHECK(gate_up.k == down.n && gate_up.n == 2 * down.k, "gate_up [{}, {}] and down [{}, {}]",
               gate_up.n, gate_up.k, down.n, down.k);
  FATHOM_CHECK((args.shared_gate_up == nullptr) == (args.shared_down == nullptr), "half a shared expert");
  if (args.shared_down != nullptr) {
    const PackedLinear& up = *args.shared_gate_up;
    FATHOM_CHECK(up.k == down.n && up.n == 2 * args.shared_down->k && args.shared_down->n == down.n,
                 "shared gate_up [{}, {}] and down [{}, {}]", up.n, up.k, args.shared_down->n,
                 args.shared_down->k);
  }
  const int64_t tokens = args.x.dim(0);
  check_tensor("x", args.x, device::DType::kF32, {-1, gate_up.k});
  check_tensor("ids", args.ids, device::DType::kI32, {tokens, -1});
  check_tensor("weights", args.weights, device::DType::kF32, {tokens, args.ids.dim(1)});
  check_tensor("y", args.y, device::DType::kF32, {tokens, down.n});
}

}  // namespace fathom::ops

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
  const int64_t tokens = args.x.dim(0);
  check_tensor("x", args.x, device::DType::kF32, {-1, gate_up.k});
  check_tensor("ids", args.ids, device::DType::kI32, {tokens, -1});
  check_tensor("weights", args.weights, device::DType::kF32, {tokens, args.ids.dim(1)});
  check_tensor("y", args.y, device::DType::kF32, {tokens, down.n});
}

}  // namespace fathom::ops

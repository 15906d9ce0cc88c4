// What every implementation of the linear ops requires of its arguments.
#pragma once

#include "device/tensor.h"
#include "ops/linear/linear.h"

namespace fathom::ops {

inline void check_linear(const LinearArgs& args) {
  FATHOM_CHECK(args.weight != nullptr, "no weight");
  check_tensor("x", args.x, device::DType::kF32, {-1, args.weight->k});
  check_tensor("y", args.y, device::DType::kF32, {args.x.dim(0), args.weight->n});
}

inline void check_batched_linear(const BatchedLinearArgs& args) {
  FATHOM_CHECK(!args.weights.empty(), "no weights");
  const auto heads = static_cast<int64_t>(args.weights.size());
  const PackedLinear& first = args.weights[0];
  for (const PackedLinear& w : args.weights) {
    FATHOM_CHECK(w.n == first.n && w.k == first.k && w.dtype == first.dtype,
                 "heads differ: [{}, {}] {} and [{}, {}] {}", w.n, w.k, to_string(w.dtype), first.n, first.k,
                 to_string(first.dtype));
  }
  check_tensor("x", args.x, device::DType::kF32, {-1, heads, first.k});
  check_tensor("y", args.y, device::DType::kF32, {args.x.dim(0), heads, first.n});
}

}  // namespace fathom::ops

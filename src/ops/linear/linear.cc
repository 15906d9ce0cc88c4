#include "ops/linear/linear.h"

#include <array>

#include "ops/implementation.h"

namespace fathom::ops {

LinearFunction choose_linear(const device::Target& /*target*/, device::DType /*dtype*/, Compute /*compute*/,
                             const char** name) {
  if (name != nullptr) *name = "reference";
  return linear_reference;
}
BatchedLinearFunction choose_batched_linear(const device::Target& /*target*/, device::DType /*dtype*/,
                                            Compute /*compute*/) {
  return batched_linear_reference;
}

}  // namespace fathom::ops

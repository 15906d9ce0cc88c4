// A model as `fathom verify` drives it: one sequence at a time, by hand.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "device/tensor.h"

namespace fathom::engine {

class VerifyModel {
 public:
  virtual ~VerifyModel() = default;

  // Forgets the sequence: the next forward begins at position 0.
  virtual void reset() = 0;
  // Appends tokens to the sequence, as prompt or as output. Logits [wanted, V] F32 in host memory after each
  // of the last `wanted` of them, valid until the next call.
  virtual Result<device::Tensor> forward(const std::vector<int32_t>& tokens, int64_t wanted, bool decode) = 0;
};

}  // namespace fathom::engine

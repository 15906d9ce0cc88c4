// y[t] = table[ids[t]]; the table stays in the checkpoint's dtype.
#pragma once

#include "device/launch.h"
#include "device/tensor.h"

namespace fathom::ops {

struct EmbeddingArgs {
  device::Tensor table;          // [V, H] F32, BF16 or F16
  const int32_t* ids = nullptr;  // [T] in [0, V)
  device::Tensor y;              // [T, H] f32
};

using EmbeddingFunction = void (*)(device::Launch&, const EmbeddingArgs&);
EmbeddingFunction choose_embedding(const device::Target& target);
void embedding_reference(device::Launch&, const EmbeddingArgs&);

}  // namespace fathom::ops

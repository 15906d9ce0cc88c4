// Plain attention over the flash kernels: items of one head and a range of one row's tokens.
#pragma once

#include "ops/attention/flash.h"
#include "ops/mha_attention/mha_attention.h"

namespace fathom::ops {

void mha_attention_blocked(device::Launch& launch, const MhaAttentionArgs& args, const FlashKernels& kernels);

}  // namespace fathom::ops

// Extend attention over the flash kernels. Places are projected in groups of at most args.chunk, which may
// hold pieces of several rows, so that many short prompts cost one pass over kv_b and not one each. Rows are
// cut at multiples of kKeyBlock, where the running softmax may be put down and taken up without changing a
// bit.
#pragma once

#include "ops/attention/flash.h"
#include "ops/extend_attention/extend_attention.h"

namespace fathom::ops {

void extend_attention_blocked(device::Launch& launch, const ExtendAttentionArgs& args,
                              const FlashKernels& kernels);

}  // namespace fathom::ops

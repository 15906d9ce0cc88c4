// MLA decode over the flash kernels: queries of all heads (and of a row's tokens) in the lanes, the cache's
// entries as both keys and values, and the context cut into splits of fixed places that threads share.
#pragma once

#include "ops/attention/flash.h"
#include "ops/mla_decode/mla_decode.h"

namespace fathom::ops {

// A split is always computed from nothing and merged in order, also when one thread does them all, so that
// the result does not depend on who computed what. A multiple of kKeyBlock.
inline constexpr int64_t kMlaSplit = 256;

// Kernels that take pairs are for bf16 caches of even width.
void mla_decode_blocked(device::Launch& launch, const MlaDecodeArgs& args, const FlashKernels& kernels);

}  // namespace fathom::ops

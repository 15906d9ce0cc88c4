// Attention over a plain cache (--disable-mla) on the GPU, for prompt and output tokens alike: every token is
// a query of its own over places 0 .. positions[t] of its slot. Not a fast path: it is the other side of the
// comparison with MLA.
#pragma once

#include "device/cuda/stream.h"
#include "ops/attention/branches.h"
#include "ops/cuda_batch.h"

namespace fathom::ops::cuda {

struct MhaAttentionArgs {
  Matrix q;         // [T, Nh * Dk]
  CacheView cache;  // width Nh (Dk + Dv)
  BatchView batch;
  Branches branches{};                    // of guesses
  int64_t heads = 0, key = 0, value = 0;  // Nh, Dk, Dv
  float scale = 1.0F;
  Matrix out;  // [T, Nh * Dv]
};
void mha_attention(device::cuda::Stream& stream, const MhaAttentionArgs& args);

}  // namespace fathom::ops::cuda

// What mla_decode attends with and to, from what the projections leave: queries absorbed and rotated, and the
// tokens' own entries.
#pragma once

#include "ops/kv_write/cuda.h"
#include "ops/linear/cuda.h"
#include "ops/rope/cuda.h"

namespace fathom::ops::cuda {

// For each head h: q.y[t, h] = [ w_kc[h] q.x[t, h, :Dn], rope(q.x[t, h, Dn:]) ]; and latent_write(latent).
struct MlaQueriesArgs {
  RopeArgs q;                      // y_offset: Dc
  const Weight* weight = nullptr;  // Nh groups of [Dc, Dn]: w_kc
  LatentWriteArgs latent;          // of the same tokens
};
// All of it in one launch, the bits of batched_linear(), rope() and latent_write(). False, and nothing is
// done, where it is not for these arguments: many tokens, other types.
bool mla_queries(device::cuda::Stream& stream, const MlaQueriesArgs& args);

}  // namespace fathom::ops::cuda

// Writes new tokens into the KV cache on the GPU, rounded to its dtype (ops/kv_write/kv_write.h says what an
// entry holds). FP8 entries are plain casts, saturating, without a scale, as the reference's default.
#pragma once

#include "device/cuda/stream.h"
#include "ops/cuda_batch.h"
#include "ops/rope/cuda.h"

namespace fathom::ops::cuda {

// entry = [ rms_norm(kv_a[:Dc]) * weight, rope(kv_a[Dc:]) ]
struct LatentWriteArgs {
  Matrix kv_a;                         // [T, Dc + Dr], as projected
  const float* norm_weight = nullptr;  // [Dc]
  float eps = 1e-6F;
  RopeView rope;
  BatchView batch;
  CacheView cache;  // width Dc + Dr
  // When data is set, receives the normalised latent and the rotated rope part: [T, Dc + Dr].
  Matrix copy;
};
void latent_write(device::cuda::Stream& stream, const LatentWriteArgs& args);

// The same as rope(q) and latent_write(latent), the same bits, in one launch where activations have one
// dtype and are aligned. Both have the batch's tokens, positions and table.
void rope_and_latent_write(device::cuda::Stream& stream, const RopeArgs& q, const LatentWriteArgs& latent);

// entry = [ for each head: k_nope | k_rope ], [ for each head: v ]
struct PlainWriteArgs {
  Matrix k_nope_v;  // [T, Nh * (Dn + Dv)]: each head's k_nope, then v
  Matrix k_rope;    // [T, Dr], rotated
  int64_t heads = 0, nope = 0, value = 0;
  BatchView batch;
  CacheView cache;  // width Nh (Dn + Dr + Dv)
};
void plain_write(device::cuda::Stream& stream, const PlainWriteArgs& args);

}  // namespace fathom::ops::cuda

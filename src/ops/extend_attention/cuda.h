// Un-absorbed attention of prompt tokens on the GPU. A pass takes keys and values of some places of some
// sequences, already projected from their latents, and lets the rows' queries attend to them; passes of one
// row are merged by their log-sum-exp, in order of place. Passes are cut at fixed places, so a token's result
// does not depend on how its prompt was cut.
#pragma once

#include "device/cuda/stream.h"
#include "ops/cuda_batch.h"

namespace fathom::ops::cuda {

// Queries [first, first + count) of the batch, at positions start .. start + count - 1, against places
// [key_begin, key_end) of their sequence, which lie in rows key_row .. of the pass's keys; token i sees those
// at or before its own position. `merge`: earlier passes of the row left their results; the first pass begins
// at place 0. A token's result goes to `out` in the pass that holds its own place, to `partial` and `lse` in
// those before, and nowhere in those after.
struct ExtendRow {
  int32_t first = 0, count = 0, start = 0;
  int32_t slot = 0;
  int32_t key_begin = 0, key_end = 0;
  int32_t key_row = 0;
  int32_t merge = 0;
};

// Copies places [key_begin, key_end) of each row's sequence out of the cache: latent [keys, Dc] and rope
// [keys, Dr] in the activations' dtype.
struct LatentGatherArgs {
  CacheView cache;
  BatchView batch;                  // block tables
  const ExtendRow* rows = nullptr;  // [num_rows], on the device
  int64_t num_rows = 0;
  int64_t keys = 0;          // of all rows together
  int64_t latent_width = 0;  // Dc
  Matrix latent, rope;
};
void latent_gather(device::cuda::Stream& stream, const LatentGatherArgs& args);

struct ExtendAttentionArgs {
  Matrix q;                              // [T, Nh * (Dn + Dr)], rope part rotated
  Matrix kv;                             // [keys, Nh * (Dn + Dv)]: each head's k_nope, then v
  Matrix k_rope;                         // [keys, Dr], the same for all heads
  const ExtendRow* rows = nullptr;       // [num_rows], on the device
  const ExtendRow* host_rows = nullptr;  // the same on the host, to shape the launch
  int64_t num_rows = 0;
  int64_t heads = 0, nope = 0, value = 0;
  float scale = 1.0F;
  Matrix out;  // [T, Nh * Dv], activations' dtype
  // Between passes: float32 [T, Nh, Dv], normalised, and log-sum-exp in base 2 [T, Nh]. A row of one pass
  // (merge 0 and key_end past its last position) touches neither; null where all rows are.
  float* partial = nullptr;
  float* lse = nullptr;
};
void extend_attention(device::cuda::Stream& stream, const ExtendAttentionArgs& args);

}  // namespace fathom::ops::cuda

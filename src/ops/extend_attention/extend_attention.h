// Un-absorbed MLA attention of prompt tokens over everything before them and themselves. The new tokens are
// already in the cache. Places are taken in chunks of bounded size: a chunk's latents are read from the
// cache, projected to keys and values with kv_b, and attended to; partial results are merged by their
// log-sum-exp, in order of place. Chunks and blocks begin at fixed places (multiples of their size), and new
// tokens are read back from the cache as it rounded them, so a token's result does not depend on how its
// prompt was cut or on what was cached.
#pragma once

#include <span>

#include "device/launch.h"
#include "device/tensor.h"
#include "ops/extend_attention/kept_keys.h"
#include "ops/kv_cache.h"
#include "ops/linear/linear.h"

namespace fathom::ops {

struct ExtendAttentionArgs {
  device::Tensor q;                         // [T, Nh, Dn + Dr] f32, rope part rotated
  KvCache cache;                            // width Dc + Dr
  std::span<const AttentionRow> rows;       // cover [0, T)
  const PackedLinear* kv_b = nullptr;       // [Nh (Dn + Dv), Dc]
  LinearFunction linear = nullptr;          // for kv_b
  int64_t latent = 0, nope = 0, value = 0;  // Dc, Dn, Dv
  float scale = 1.0F;
  int64_t chunk = 512;  // places projected at a time; a multiple of the kernel's key block (64)
  KeptLayer kept;      // CPU: of what kv_b gave in earlier passes; the row's tokens are told to it as written
  device::Tensor out;  // [T, Nh, Dv] f32
};

using ExtendAttentionFunction = void (*)(device::Launch&, const ExtendAttentionArgs&);
ExtendAttentionFunction choose_extend_attention(const device::Target& target);
void extend_attention_reference(device::Launch&, const ExtendAttentionArgs&);

}  // namespace fathom::ops

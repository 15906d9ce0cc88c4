// Writes new tokens into the KV cache, rounded to its dtype.
//   latent: entry = [ rms_norm(kv_a[:Dc]) * weight, rope(kv_a[Dc:]) ]
//   plain:  entry = [ for each head: k_nope | k_rope (the same for all heads) ], [ for each head: v ]
#pragma once

#include "device/launch.h"
#include "device/tensor.h"
#include "ops/kv_cache.h"
#include "ops/rope/rope.h"

namespace fathom::ops {

struct LatentWriteArgs {
  device::Tensor kv_a;                 // [T, Dc + Dr] f32, as projected
  const float* norm_weight = nullptr;  // [Dc]
  float eps = 1e-6F;
  const RopeTable* rope = nullptr;
  const int32_t* positions = nullptr;  // [T]
  const int64_t* places = nullptr;     // [T] page * page_size + offset (out_loc)
  KvCache cache;                       // width Dc + Dr
  // When set, receives the normalised latent and the rotated rope part, unrounded: [T, Dc + Dr] f32.
  device::Tensor* copy = nullptr;
};
using LatentWriteFunction = void (*)(device::Launch&, const LatentWriteArgs&);
LatentWriteFunction choose_latent_write(const device::Target& target);
void latent_write_reference(device::Launch&, const LatentWriteArgs&);

struct PlainWriteArgs {
  device::Tensor k_nope_v;          // [T, Nh, Dn + Dv] f32: kv_b's output, each head's k_nope then v
  device::Tensor k_rope;            // [T, Dr] f32, rotated
  int64_t nope = 0;                 // Dn
  const int64_t* places = nullptr;  // [T]
  KvCache cache;                    // width Nh (Dn + Dr + Dv)
};
using PlainWriteFunction = void (*)(device::Launch&, const PlainWriteArgs&);
PlainWriteFunction choose_plain_write(const device::Target& target);
void plain_write_reference(device::Launch&, const PlainWriteArgs&);

}  // namespace fathom::ops

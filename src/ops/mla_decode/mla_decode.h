// Absorbed MLA attention over the latent cache: every head reads the same entries.
//   s[p] = scale * q . entry[p]   (Dc + Dr values; q = [ W_kc^T q_nope , rope(q_rope) ])
//   o    = sum_p softmax(s)[p] * entry[p][:Dc]
// (DeepSeek-V2, arXiv:2405.04434, section 2.1.2; absorption as in its appendix C.)
// Keys are processed in blocks of a fixed size at fixed places, merged in order: the result of a token
// depends on its own sequence alone, not on the batch, the threads or the other tokens of its row.
#pragma once

#include <span>

#include "device/launch.h"
#include "device/tensor.h"
#include "ops/kv_cache.h"
#include "ops/linear/linear.h"

namespace fathom::ops {

struct MlaDecodeArgs {
  device::Tensor q;                    // [T, Nh, Dc + Dr] f32
  KvCache cache;                       // width Dc + Dr
  std::span<const AttentionRow> rows;  // cover [0, T); count >= 1 (several tokens: causal among themselves)
  int64_t latent = 0;                  // Dc
  float scale = 1.0F;
  device::Tensor out;  // [T, Nh, Dc] f32
};

using MlaDecodeFunction = void (*)(device::Launch&, const MlaDecodeArgs&);
// `compute`: that of the model's products. Under kBF16 queries and softmax weights may be rounded to bf16
// where the cache is bf16 and the processor multiplies it.
MlaDecodeFunction choose_mla_decode(const device::Target& target, Compute compute);
void mla_decode_reference(device::Launch&, const MlaDecodeArgs&);

}  // namespace fathom::ops

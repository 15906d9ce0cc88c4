// Plain multi-head attention over a plain cache (--disable-mla), for prompt and output tokens alike. Same
// blocks and order as extend_attention, so both give the same tokens.
#pragma once

#include <span>

#include "device/launch.h"
#include "device/tensor.h"
#include "ops/kv_cache.h"

namespace fathom::ops {

struct MhaAttentionArgs {
  device::Tensor q;                    // [T, Nh, Dk] f32
  KvCache cache;                       // width Nh (Dk + Dv)
  std::span<const AttentionRow> rows;  // cover [0, T)
  int64_t value = 0;                   // Dv
  float scale = 1.0F;
  device::Tensor out;  // [T, Nh, Dv] f32
};

using MhaAttentionFunction = void (*)(device::Launch&, const MhaAttentionArgs&);
MhaAttentionFunction choose_mha_attention(const device::Target& target);
void mha_attention_reference(device::Launch&, const MhaAttentionArgs&);

}  // namespace fathom::ops

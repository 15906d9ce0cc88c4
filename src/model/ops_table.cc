#include "model/layers.h"

namespace fathom::model {

Ops::Ops(const device::Target& target, ops::Compute compute)
    : embedding(ops::choose_embedding(target)),
      rms_norm(ops::choose_rms_norm(target)),
      rope(ops::choose_rope(target)),
      latent_write(ops::choose_latent_write(target)),
      plain_write(ops::choose_plain_write(target)),
      extend_attention(ops::choose_extend_attention(target)),
      mla_decode(ops::choose_mla_decode(target, compute)),
      mha_attention(ops::choose_mha_attention(target)),
      gate(ops::choose_gate(target)),
      swiglu(ops::choose_swiglu(target)) {}

}  // namespace fathom::model

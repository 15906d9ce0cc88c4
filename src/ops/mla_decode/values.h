// What the output projection reads, from the queries that attend to the latent cache: mla_decode(), its
// outputs as values, and these rounded.
#pragma once

#include "ops/linear/cuda.h"
#include "ops/mla_decode/cuda.h"

namespace fathom::ops::cuda {

// For each head h: y[t, h] = w_vc[h] decode.out[t, h], and rounded = quantize(y).
struct MlaValuesArgs {
  MlaDecodeArgs decode;            // of `out` what is left is not said
  const Weight* weight = nullptr;  // Nh groups of [Dv, Dc]: w_vc
  Matrix y;                        // [T, Nh * Dv]
  QuantizedMatrix rounded{};       // of y; empty: not wanted
};
// All of it in two launches, the bits of mla_decode(), batched_linear() and quantize(). False, and nothing is
// done, where it is not for these arguments: many tokens, other types.
bool mla_values(device::cuda::Stream& stream, const MlaValuesArgs& args);

}  // namespace fathom::ops::cuda

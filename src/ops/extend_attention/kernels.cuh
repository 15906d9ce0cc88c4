// The kernels behind extend_attention's front door, and what they do with a pass's result.
#pragma once

#include "ops/attention/values.cuh"
#include "ops/extend_attention/cuda.h"

namespace fathom::ops::cuda {

// Any heads; Dn, Dr and Dv multiples of 8, Dv at most 256; float32 arithmetic.
void extend_attention_portable(device::cuda::Stream& stream, const ExtendAttentionArgs& args);

// Hopper, bf16, Dn 128, Dr 64, Dv 128, rows aligned to 16 bytes: bound by the tensor cores.
void extend_attention_warpgroups(device::cuda::Stream& stream, const ExtendAttentionArgs& args);
bool extend_attention_warpgroups_takes(const device::cuda::Gpu& gpu, const ExtendAttentionArgs& args);

// Where a query's result of this pass goes, by the pass that its own place lies in.
struct ExtendEpilogue {
  float* partial;
  float* lse;

  // True: to out, the query's last pass. Else to partial and lse.
  __device__ static bool last(const ExtendRow& row, int position) { return position < row.key_end; }
  // The query was finished by an earlier pass.
  __device__ static bool done(const ExtendRow& row, int position) { return position < row.key_begin; }
};

// How a new pass's result, with its log-sum-exp in base 2, joins that of the passes before it.
struct ExtendMerge {
  float old_share = 0, new_share = 1;  // of the normalised results
  float lse = 0;

  __device__ explicit ExtendMerge(float new_lse) : lse(new_lse) {}
  __device__ ExtendMerge(float old_lse, float new_lse) {
    const float top = fmaxf(old_lse, new_lse);
    const float a = exp2f(old_lse - top), b = exp2f(new_lse - top);
    lse = top + log2f(a + b);
    old_share = a / (a + b);
    new_share = b / (a + b);
  }
};

}  // namespace fathom::ops::cuda

// The second kernel of a split mla_decode: folds the items' partial results into the queries' outputs.
#pragma once

#include "device/cuda/stream.h"
#include "ops/attention/values.cuh"
#include "ops/mla_decode/split.cuh"

namespace fathom::ops::cuda {

// Outputs of queries that are one item were written by the kernel of the items and stay as they are. Dc is a
// multiple of 4.
struct SplitCombineArgs {
  SplitWorkspace workspace;
  int most_units = 0;  // of a query
  int tokens = 0;
  int heads = 0, latent = 0;
  Activations out;
  int64_t out_stride = 0;
  bool whole_stores = false;  // rows of `out` begin at multiples of four values
};
// `early`: it may be started while the kernel of the items, which allows that, still runs.
void split_combine(device::cuda::Stream& stream, const SplitCombineArgs& args, bool early);

}  // namespace fathom::ops::cuda

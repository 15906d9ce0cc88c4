// How a CTA sorts the copies of few tokens by expert, from shared memory (cuda.h says what a sort is). A
// token's experts differ.
#pragma once

#include "ops/moe/cuda.h"

namespace fathom::ops::cuda {

// One token: a copy's place is how many of the others' experts come before its own. experts: [K] its place
// among those here; -1: left out.
__device__ inline void sort_one(const int32_t* experts, const ExpertSortArgs& args) {
  const auto thread = static_cast<int32_t>(threadIdx.x), threads = static_cast<int32_t>(blockDim.x);
  const auto before = [&](int32_t expert) {
    int32_t count = 0;
    for (int32_t k = 0; k < args.top_k; ++k)
      count += static_cast<int32_t>(experts[k] >= 0 && experts[k] < expert);
    return count;
  };
  // The offsets, then the copies.
#pragma unroll 1
  for (int32_t i = thread; i < args.experts + 1 + args.top_k; i += threads) {
    const int32_t k = i - args.experts - 1;
    const int32_t expert = k < 0 ? i : experts[k];
    const int32_t place = expert >= 0 ? before(expert) : -1;
    (k < 0 ? args.sort.offsets + i : args.sort.places + k)[0] = place;
    if (k >= 0 && place >= 0) args.sort.tokens[place] = 0;
  }
}

// Up to 32 tokens, in a CTA of at least E threads. experts: [T, K], as above; tokens_of[E]: which tokens an
// expert has, a bit each; firsts[E]: memory. A barrier lies between those who wrote these and this.
__device__ inline void sort_few(const int32_t* experts, const uint32_t* tokens_of, int32_t* firsts,
                                const ExpertSortArgs& args) {
  __shared__ int32_t warps[32];
  const auto thread = static_cast<int32_t>(threadIdx.x), threads = static_cast<int32_t>(blockDim.x);
  const int32_t lane = thread % 32, warp = thread / 32;
  const int32_t own = thread < args.experts ? __popc(tokens_of[thread]) : 0;
  int32_t upto = own;  // copies of the warp's experts up to this one
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int32_t other = __shfl_up_sync(0xffffffffU, upto, step);
    if (lane >= step) upto += other;
  }
  if (lane == 31) warps[warp] = upto;
  __syncthreads();
  if (thread < args.experts) {
    int32_t first = upto - own;
    for (int32_t w = 0; w < warp; ++w) first += warps[w];
    firsts[thread] = args.sort.offsets[thread] = first;
    if (thread == args.experts - 1) args.sort.offsets[args.experts] = first + own;
  }
  __syncthreads();
#pragma unroll 1
  for (int32_t i = thread; i < static_cast<int32_t>(args.tokens) * args.top_k; i += threads) {
    const int32_t expert = experts[i], token = i / args.top_k;
    int32_t place = -1;
    if (expert >= 0) {
      place = firsts[expert] + __popc(tokens_of[expert] & ((1U << token) - 1U));
      args.sort.tokens[place] = token;
    }
    args.sort.places[i] = place;
  }
}

}  // namespace fathom::ops::cuda

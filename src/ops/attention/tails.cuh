// Branches of guessed tokens, as kernels see them.
#pragma once

#include "ops/attention/branches.h"

namespace fathom::ops::cuda {

struct TokenTail {
  const int64_t* entries = nullptr;
  int start = 0x7fffffff;

  __device__ bool has(int place) const { return place >= start; }
  __device__ int64_t entry(int place) const { return entries[place - start]; }
};
__device__ inline TokenTail tail_of(const Branches& branches, int64_t token) {
  return branches.starts != nullptr
             ? TokenTail{branches.entries + token * branches.stride, branches.starts[token]}
             : TokenTail{};
}

}  // namespace fathom::ops::cuda

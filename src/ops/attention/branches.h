// Branches of guessed tokens on the GPU: the entries of their last positions are not in their slots' pages.
#pragma once

#include <cstdint>

namespace fathom::ops::cuda {

// Device memory, beside a BatchView: of token t, entry p for positions from starts[t] on is entries[t *
// stride
// + p - starts[t]], as page * page_size + offset. A start beyond the token's position: it has no branch.
struct Branches {
  const int32_t* starts = nullptr;   // [T]; null: no token has one
  const int64_t* entries = nullptr;  // [T, stride]
  int64_t stride = 0;

  // Of the tokens from `begin` on.
  Branches from(int64_t begin) const {
    if (starts == nullptr) return {};
    return {starts + begin, entries + begin * stride, stride};
  }
};

}  // namespace fathom::ops::cuda

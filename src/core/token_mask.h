// The seam of structured output: which tokens may come next. Made by text, carried through sched to the
// engine, applied by sample.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/result.h"

namespace fathom {

// Where one sequence stands. Used by one thread at a time.
class TokenMask {
 public:
  virtual ~TokenMask() = default;

  // A chosen token; call once for each, in order. Tokens that the mask forbade, and tokens after the end,
  // change nothing.
  virtual void accept(int32_t token) = 0;
  // False while every token may come (the model still thinks).
  virtual bool constrains() const = 0;
  // Bit t of `allowed` (word t / 64, bit t % 64) says whether token t may come; needs constrains() and
  // num_mask_words(vocabulary). Never all zero. An error, of which the request dies, when the grammar turns
  // out to be too costly.
  virtual Result<void> fill(std::span<uint64_t> allowed) = 0;
};

// What a request's output must look like. Immutable; shared by all threads.
class TokenMaskSource {
 public:
  virtual ~TokenMaskSource() = default;
  virtual std::unique_ptr<TokenMask> begin() const = 0;
};

inline size_t num_mask_words(int64_t vocab) {
  return static_cast<size_t>((vocab + 63) / 64);
}

}  // namespace fathom

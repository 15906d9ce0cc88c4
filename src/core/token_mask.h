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
  static constexpr int kMaxRollback = 64;

  virtual ~TokenMask() = default;

  // A chosen token, or one that is tried; call for each, in order. False, and nothing changes, where the mask
  // forbids the token or the output is over.
  virtual bool accept(int32_t token) = 0;
  // Takes back the last `count` accepted tokens, at most kMaxRollback of them and those since begin().
  virtual void rollback(int count) = 0;
  // False while every token may come.
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

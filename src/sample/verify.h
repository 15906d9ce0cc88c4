// Which of a sequence's guessed tokens hold (speculative decoding).
//
// At each position the sequence's token is chosen from the model's logits as it is without guesses: the same
// bias, penalties, mask, filters and the same draw. A guess holds when it is that token; the first one that
// does not is replaced by it, and the guesses after it are dropped. So the tokens are those of decoding one
// by one, bit for bit, and their distribution is the model's whatever was guessed. With a guess that is fixed
// before the draw, this is speculative sampling (arXiv:2302.01318): it holds with probability p(guess), and
// what replaces it has the distribution p without the guess, renormalised.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "core/sampling.h"
#include "device/tensor.h"
#include "sample/sampler.h"
#include "sample/slot_sampler.h"

namespace fathom::sample {

struct VerifyRow {
  int64_t first = 0;                 // its logits: rows first .. first + guesses.size()
  std::span<const int32_t> guesses;  // none: one token is chosen
  SlotSampler* slot = nullptr;
  AllowedTokens allowed{};                      // of the first position; a row with a mask has no guesses
  std::vector<TokenOutput>* outputs = nullptr;  // appended: the right guesses, and one token more
};

// For each row; `slot` is told of its tokens. A stop id ends a row early. Logits [R, V] f32 may be
// overwritten.
void verify_rows(ThreadPool& pool, const device::Tensor& logits, std::span<const VerifyRow> rows);

}  // namespace fathom::sample

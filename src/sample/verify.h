// Which of a sequence's guessed tokens hold (speculative decoding).
//
// At each position the sequence's token is chosen from the model's logits as it is without guesses: the same
// bias, penalties, mask, filters and the same draw. A guess holds when it is that token; the first one that
// does not is replaced by it, and the guesses after it are dropped. So the tokens are those of decoding one
// by one, bit for bit, and their distribution is the model's whatever was guessed. With a guess that is fixed
// before the draw, this is speculative sampling (arXiv:2302.01318): it holds with probability p(guess), and
// what replaces it has the distribution p without the guess, renormalised. Of several guesses for one place,
// the one that is the token holds. Thresholds, where a row has them, are another rule (sampler.h): tokens
// then depend on what was guessed.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "core/sampling.h"
#include "device/tensor.h"
#include "sample/guess_tree.h"
#include "sample/mask_workers.h"
#include "sample/sampler.h"
#include "sample/slot_sampler.h"

namespace fathom::sample {

struct VerifyRow {
  int64_t first = 0;                   // the logits after its last token; those after guess i: first + 1 + i
  const GuessTree* guesses = nullptr;  // null: one token is chosen
  SlotSampler* slot = nullptr;
  const MaskWorkers::Found* mask = nullptr;           // of the first choice; null: none
  std::span<const MaskWorkers::Found> guess_masks{};  // of the choice after each guess, where `mask` is set
  const GuessThresholds* thresholds = nullptr;        // null: the rule above
  double simulated = -1.0;  // 0 to 1: the first guess for a place holds so often, whatever it is
  std::vector<TokenOutput>* outputs = nullptr;  // appended: the right guesses, and one token more
  std::vector<int32_t>* path = nullptr;         // where not null, appended: the nodes that held
};

// For each row; `slot` is told of its tokens. A stop id ends a row early, as does a guess after which the
// mask has failed: that failure is the first choice's of the next step. Logits [R, V] f32 may be overwritten.
void verify_rows(ThreadPool& pool, const device::Tensor& logits, std::span<const VerifyRow> rows);

}  // namespace fathom::sample

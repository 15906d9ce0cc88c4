// Logits to tokens. A token that the thinking budget forces is chosen as it is. For each other row, in this
// order: logit_bias, penalties, banned ids, the mask, temperature,
// top_k, top_p, min_p, draw. The draw of a request's i-th token is a function of its seed and i alone, so its
// tokens do not depend on the batch. Logprobs are of the untouched logits.
//
// top_k, top_p and min_p each keep the most likely tokens up to a border, all measured on the distribution
// after temperature: top_p is not a share of what top_k left. So do both samplers of the reference, except
// that its default one, where any request of the batch has min_p, takes top_p of what top_k left: a request's
// tokens may not depend on its neighbours here. The lower id counts as the more likely of equals. NaN counts
// as impossible.
#pragma once

#include <span>

#include "base/thread_pool.h"
#include "core/sampling.h"
#include "device/tensor.h"
#include "sample/guess_thresholds.h"
#include "sample/slot_sampler.h"

namespace fathom::sample {

// Bit t of word t / 64: token t may come. Empty: every token may.
using AllowedTokens = std::span<const uint64_t>;

// The guesses for a place; none: a plain choice.
struct GuessedPlace {
  std::span<const int32_t> tokens;
  const GuessThresholds* thresholds = nullptr;  // null: guesses have no say
};

// Chooses one token for each row of logits [R, V] f32, which may be overwritten. slots[r] is row r's state;
// it is not told of the choice (accept is the caller's). allowed[r] is row r's mask; none where `allowed` is
// empty. outputs[r] receives the token and what its LogprobParams ask for.
void sample_rows(ThreadPool& pool, const device::Tensor& logits, std::span<const SlotSampler* const> slots,
                 std::span<const AllowedTokens> allowed, std::span<TokenOutput> outputs);

// One row of them.
TokenOutput sample_row(float* logits, int64_t vocab, const SlotSampler& slot, AllowedTokens allowed = {},
                       const GuessedPlace& guessed = {});

// The choice alone, for one row of already adjusted logits; `index` is the number of tokens generated before.
int32_t choose_token(const float* logits, int64_t vocab, const SamplingParams& params, int64_t index);

}  // namespace fathom::sample

// The threshold rule for guesses.
#pragma once

#include <cstdint>

namespace fathom::sample {

// The reference's rule for guesses. For a place one number u is drawn from [0, 1); the guesses for it are
// taken in turn, and their probabilities added up: one holds where u < sum / acc, or where its own
// probability is at least `single`. Where none does, a token is drawn among the others. With 1 and 1 the
// tokens are distributed as without guesses; below, guesses are favoured. Greedy choices stay what they are.
struct GuessThresholds {
  double single = 1.0, acc = 1.0;
};
// Its random numbers: streams of the request's, beside 0, which draws tokens (and guesses, so that what is
// drawn after a guess has failed may not come of it).
inline constexpr uint64_t kCoinStream = uint64_t{1} << 40;
inline constexpr uint64_t kRedrawStream = kCoinStream + 1;
}  // namespace fathom::sample

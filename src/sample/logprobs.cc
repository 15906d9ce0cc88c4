#include "sample/logprobs.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "sample/row_kernels.h"

namespace fathom::sample {

double log_sum_exp(const float* logits, int64_t vocab) {
  const RowKernels& kernels = row_kernels();
  const float highest = kernels.max(logits, vocab);
  if (std::isinf(highest)) return highest;
  thread_local std::vector<float> weights;
  thread_local std::vector<float> sums;
  weights.resize(static_cast<size_t>(vocab));
  sums.resize(static_cast<size_t>(num_blocks(vocab)));
  kernels.weigh(logits, vocab, highest, 1.0F, weights.data(), sums.data());
  return highest + std::log(std::accumulate(sums.begin(), sums.end(), 0.0));
}

std::vector<TokenLogprob> top_logprobs(const float* logits, int64_t vocab, double log_sum, int32_t count) {
  std::vector<TokenLogprob> best;
  top_logprobs(logits, vocab, log_sum, count, &best);
  return best;
}

void top_logprobs(const float* logits, int64_t vocab, double log_sum, int32_t count,
                  std::vector<TokenLogprob>* found) {
  std::vector<TokenLogprob>& best = *found;
  best.clear();
  const auto before = [](const TokenLogprob& a, const TokenLogprob& b) {
    return a.logprob != b.logprob ? a.logprob > b.logprob : a.token < b.token;
  };
  const auto size = static_cast<size_t>(std::min<int64_t>(std::max(count, 0), vocab));
  if (size == 0) return;
  // A heap of the best so far with the worst on top: most tokens cost one comparison.
  for (int64_t i = 0; i < vocab; ++i) {
    TokenLogprob candidate{static_cast<int32_t>(i), logits[i]};
    if (best.size() < size && std::isnan(candidate.logprob)) {
      candidate.logprob = -std::numeric_limits<float>::infinity();  // comparisons need an order
    }
    if (best.size() == size) {
      if (!(candidate.logprob > best.front().logprob)) continue;  // of equals the lower id is in already
      std::pop_heap(best.begin(), best.end(), before);
      best.back() = candidate;
    } else {
      best.push_back(candidate);
    }
    std::push_heap(best.begin(), best.end(), before);
  }
  std::sort_heap(best.begin(), best.end(), before);
  for (auto& entry : best) entry.logprob = static_cast<float>(entry.logprob - log_sum);
}

TokenOutput describe_token(const float* logits, int64_t vocab, int32_t token, const LogprobParams& params) {
  const double log_sum = log_sum_exp(logits, vocab);
  const auto logprob_of = [&](int32_t id) {
    if (id < 0 || id >= vocab) return -std::numeric_limits<float>::infinity();
    return static_cast<float>(logits[id] - log_sum);
  };
  TokenOutput output;
  output.token = token;
  output.logprob = logprob_of(token);
  output.top = top_logprobs(logits, vocab, log_sum, params.top);
  output.requested.reserve(params.token_ids.size());
  for (const int32_t id : params.token_ids) output.requested.push_back({id, logprob_of(id)});
  return output;
}

}  // namespace fathom::sample

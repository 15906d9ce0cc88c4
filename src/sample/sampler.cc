#include "sample/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "base/random.h"
#include "sample/logprobs.h"
#include "sample/row_kernels.h"

namespace fathom::sample {
namespace {

struct Candidate {
  float weight;  // probability, up to a common factor; 1 for the most likely token
  int32_t token;
};

// The least likely token that may be chosen.
struct Border {
  float logit = -std::numeric_limits<float>::infinity();
  int32_t token = std::numeric_limits<int32_t>::max();

  bool lets_in(float other_logit, int32_t other) const {
    return other_logit > logit || (other_logit == logit && other <= token);
  }
};

// Weights in (0, 1] by their order of size: a bucket for each eighth of an octave, the largest weights first.
constexpr int kBuckets = 1024;
constexpr int kMantissaBits = 3;
int bucket_of(float weight) {
  constexpr uint32_t kOne = std::bit_cast<uint32_t>(1.0F) >> (23 - kMantissaBits);
  return static_cast<int>(kOne - std::min(kOne, std::bit_cast<uint32_t>(weight) >> (23 - kMantissaBits)));
}

// One row's weights, and the sums of its blocks.
struct Row {
  int64_t vocab = 0;
  std::vector<float> weights;
  std::vector<float> sums;
  double total = 0.0;
};

// What top_k and top_p leave: at most `count` tokens, and no more than reach `mass`.
struct Limits {
  int64_t count;
  double mass;
};

// The tokens whose weight is positive and at least `least`, by id. Returns the sum of their weights.
double gather(const Row& row, float least, std::vector<Candidate>& candidates) {
  candidates.clear();
  double mass = 0.0;
  for (size_t block = 0; block < row.sums.size(); ++block) {
    if (row.sums[block] < least) continue;  // rounding never makes a sum less than its largest term
    const int64_t start = static_cast<int64_t>(block) * kBlock;
    for (int64_t i = start; i < std::min(start + kBlock, row.vocab); ++i) {
      const float weight = row.weights[static_cast<size_t>(i)];
      if (weight < least || weight == 0.0F) continue;
      candidates.push_back({weight, static_cast<int32_t>(i)});
      mass += weight;
    }
  }
  return mass;
}

// The likely tokens, surely with all that the limits let in. Few, when the distribution is peaked.
void gather_within(const Row& row, const Limits& limits, std::vector<Candidate>& candidates) {
  for (const float least : {0x1p-8F, 0x1p-16F, 0.0F}) {
    const double mass = gather(row, least, candidates);
    if (static_cast<int64_t>(candidates.size()) >= limits.count || mass >= limits.mass) return;
  }
}

// Where the limits end. No full sort: a histogram by weight finds the bucket of the border, and only that
// bucket is sorted.
Border find_border(const float* logits, const std::vector<Candidate>& candidates, const Limits& limits) {
  int64_t counts[kBuckets] = {};
  double masses[kBuckets] = {};
  for (const Candidate& candidate : candidates) {
    const int bucket = bucket_of(candidate.weight);
    ++counts[bucket];
    masses[bucket] += candidate.weight;
  }
  int bucket = 0;
  int64_t count = 0;  // in the buckets before
  double mass = 0.0;
  while (bucket < kBuckets && count + counts[bucket] < limits.count && mass + masses[bucket] < limits.mass) {
    count += counts[bucket];
    mass += masses[bucket];
    ++bucket;
  }
  if (bucket == kBuckets) return {};
  std::vector<Candidate> border;
  border.reserve(static_cast<size_t>(counts[bucket]));
  for (const Candidate& candidate : candidates) {
    if (bucket_of(candidate.weight) == bucket) border.push_back(candidate);
  }
  // By the logits: tokens that differ may have weights that do not.
  std::sort(border.begin(), border.end(), [&](const Candidate& a, const Candidate& b) {
    return logits[a.token] != logits[b.token] ? logits[a.token] > logits[b.token] : a.token < b.token;
  });
  for (const Candidate& candidate : border) {
    ++count;
    mass += candidate.weight;
    if (count >= limits.count || mass >= limits.mass) return {logits[candidate.token], candidate.token};
  }
  return {logits[border.back().token], border.back().token};
}

// The first of the candidates, in the order of their ids, at which the sum of weights passes `draw` of their
// total.
int32_t draw_among(const std::vector<Candidate>& candidates, double draw) {
  double total = 0.0;
  for (const Candidate& candidate : candidates) total += candidate.weight;
  double sum = 0.0;
  for (const Candidate& candidate : candidates) {
    sum += candidate.weight;
    if (draw * total < sum) return candidate.token;
  }
  return candidates.back().token;
}

// The same among all tokens, with the help of the sums of blocks.
int32_t draw_among_all(const Row& row, double draw) {
  double target = draw * row.total;
  size_t block = 0;
  while (block + 1 < row.sums.size() && target >= row.sums[block]) target -= row.sums[block++];
  int64_t last = -1;  // with any weight, in case rounding left the target beyond the block
  const int64_t start = static_cast<int64_t>(block) * kBlock;
  for (int64_t i = start; i < std::min(start + kBlock, row.vocab); ++i) {
    const float weight = row.weights[static_cast<size_t>(i)];
    if (weight == 0.0F) continue;
    last = i;
    target -= weight;
    if (target < 0.0) break;
  }
  // An empty block: the last token before it.
  for (int64_t i = start - 1; last < 0 && i >= 0; --i) {
    if (row.weights[static_cast<size_t>(i)] != 0.0F) last = i;
  }
  return static_cast<int32_t>(last);
}

// A copy of the row with the other tokens impossible; valid until the thread's next call. The row itself is
// still needed for log-probabilities.
const float* only_allowed(const float* row, int64_t vocab, AllowedTokens allowed) {
  thread_local std::vector<float> masked;
  masked.assign(static_cast<size_t>(vocab), -std::numeric_limits<float>::infinity());
  for (size_t word = 0; word < allowed.size(); ++word) {
    for (uint64_t bits = allowed[word]; bits != 0; bits &= bits - 1) {
      const size_t token = word * 64 + static_cast<size_t>(std::countr_zero(bits));
      if (token < masked.size()) masked[token] = row[token];
    }
  }
  return masked.data();
}

}  // namespace

namespace {

bool limits(const SamplingParams& params, int64_t vocab) {
  return (params.top_k > 0 && params.top_k < vocab) || params.top_p < 1.0F;
}

// The token of a row without a draw, or -1.
int32_t certain_token(const float* logits, int64_t vocab, float highest, const SamplingParams& params) {
  if (!params.greedy() && std::isfinite(highest)) return -1;
  const float* best = std::find(logits, logits + vocab, highest);
  return best == logits + vocab ? 0 : static_cast<int32_t>(best - logits);
}

const Row& weigh(const float* logits, int64_t vocab, float highest, const SamplingParams& params) {
  thread_local Row row;
  row.vocab = vocab;
  row.weights.resize(static_cast<size_t>(vocab));
  row.sums.resize(static_cast<size_t>(num_blocks(vocab)));
  row_kernels().weigh(logits, vocab, highest, 1.0F / params.temperature, row.weights.data(), row.sums.data());
  row.total = std::accumulate(row.sums.begin(), row.sums.end(), 0.0);
  return row;
}

// What top_k, top_p and min_p leave, by id.
std::vector<Candidate>& find_candidates(const float* logits, const Row& row, const SamplingParams& params) {
  thread_local std::vector<Candidate> candidates;
  if (!limits(params, row.vocab)) {
    gather(row, params.min_p, candidates);
    return candidates;
  }
  const Limits limits{
      .count = params.top_k > 0 ? static_cast<int64_t>(params.top_k) : row.vocab,
      .mass = params.top_p < 1.0F ? params.top_p * row.total : std::numeric_limits<double>::infinity()};
  gather_within(row, limits, candidates);
  const Border border = find_border(logits, candidates, limits);
  std::erase_if(candidates, [&](const Candidate& candidate) {
    return candidate.weight < params.min_p || !border.lets_in(logits[candidate.token], candidate.token);
  });
  return candidates;
}

int32_t choose_among_guesses(const float* logits, int64_t vocab, const SamplingParams& params, int64_t index,
                             const GuessedPlace& guessed) {
  const float highest = row_kernels().max(logits, vocab);
  const int32_t certain = certain_token(logits, vocab, highest, params);
  if (certain >= 0) return certain;
  const Row& row = weigh(logits, vocab, highest, params);
  std::vector<Candidate>& candidates = find_candidates(logits, row, params);
  double total = 0.0;
  for (const Candidate& candidate : candidates) total += candidate.weight;
  const double coin = random_uniform(params.seed, kCoinStream, static_cast<uint64_t>(index));
  double sum = 0.0;
  for (const int32_t guess : guessed.tokens) {
    const auto found = std::ranges::find(candidates, guess, &Candidate::token);
    if (found == candidates.end()) continue;
    const double probability = found->weight / total;
    sum += probability;
    if (coin < sum / guessed.thresholds->acc || probability >= guessed.thresholds->single) return guess;
    if (candidates.size() == 1) return guess;  // there is no other, and the sum was rounded
    candidates.erase(found);
  }
  return draw_among(candidates, random_uniform(params.seed, kRedrawStream, static_cast<uint64_t>(index)));
}

}  // namespace

int32_t choose_token(const float* logits, int64_t vocab, const SamplingParams& params, int64_t index) {
  const float highest = row_kernels().max(logits, vocab);
  const int32_t certain = certain_token(logits, vocab, highest, params);
  if (certain >= 0) return certain;
  const Row& row = weigh(logits, vocab, highest, params);
  const double draw = random_uniform(params.seed, 0, static_cast<uint64_t>(index));
  if (!limits(params, vocab) && params.min_p <= 0.0F) return draw_among_all(row, draw);
  return draw_among(find_candidates(logits, row, params), draw);
}

TokenOutput sample_row(float* logits, int64_t vocab, const SlotSampler& slot, AllowedTokens allowed,
                       const GuessedPlace& guessed) {
  thread_local std::vector<std::pair<int32_t, float>> changed;
  changed.clear();
  if (slot.adjusts()) slot.adjust(logits, vocab, slot.logprobs().output ? &changed : nullptr);
  const float* masked = allowed.empty() ? logits : only_allowed(logits, vocab, allowed);
  const int32_t forced = slot.forced();
  const bool by_thresholds = guessed.thresholds != nullptr && !guessed.tokens.empty();
  const int32_t token = forced >= 0 ? forced
                        : by_thresholds
                            ? choose_among_guesses(masked, vocab, slot.params(), slot.generated(), guessed)
                            : choose_token(masked, vocab, slot.params(), slot.generated());
  if (slot.logprobs().output) {
    for (const auto& [id, value] : changed) logits[id] = value;
    return describe_token(logits, vocab, token, slot.logprobs());
  }
  TokenOutput output;
  output.token = token;
  return output;
}

void sample_rows(ThreadPool& pool, const device::Tensor& logits, std::span<const SlotSampler* const> slots,
                 std::span<const AllowedTokens> allowed, std::span<TokenOutput> outputs) {
  device::check_tensor("logits", logits, device::DType::kF32, {static_cast<int64_t>(slots.size()), -1});
  FATHOM_CHECK_EQ(slots.size(), outputs.size());
  FATHOM_CHECK(allowed.empty() || allowed.size() == slots.size(), "{} masks for {} rows", allowed.size(),
               slots.size());
  const int64_t vocab = logits.dim(1);
  pool.parallel_for(logits.dim(0), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      outputs[static_cast<size_t>(r)] =
          sample_row(logits.row<float>(r), vocab, *slots[static_cast<size_t>(r)],
                     allowed.empty() ? AllowedTokens() : allowed[static_cast<size_t>(r)]);
    }
  });
}

}  // namespace fathom::sample

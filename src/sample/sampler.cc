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

// Where top_k and top_p end. No full sort: a histogram by weight finds the bucket of the border, and only
// that bucket is sorted.
Border find_border(const float* logits, const float* weights, int64_t vocab, const SamplingParams& params,
                   double total) {
  int64_t counts[kBuckets] = {};
  double masses[kBuckets] = {};
  for (int64_t i = 0; i < vocab; ++i) {
    if (weights[i] == 0.0F) continue;
    const int bucket = bucket_of(weights[i]);
    ++counts[bucket];
    masses[bucket] += weights[i];
  }
  const auto most = params.top_k > 0 ? static_cast<int64_t>(params.top_k) : vocab;
  const double needed = params.top_p < 1.0F ? params.top_p * total : std::numeric_limits<double>::infinity();
  int bucket = 0;
  int64_t count = 0;  // in the buckets before
  double mass = 0.0;
  while (bucket < kBuckets && count + counts[bucket] < most && mass + masses[bucket] < needed) {
    count += counts[bucket];
    mass += masses[bucket];
    ++bucket;
  }
  if (bucket == kBuckets) return {};
  std::vector<Candidate> border;
  border.reserve(static_cast<size_t>(counts[bucket]));
  for (int64_t i = 0; i < vocab; ++i) {
    if (weights[i] != 0.0F && bucket_of(weights[i]) == bucket)
      border.push_back({weights[i], static_cast<int32_t>(i)});
  }
  // By the logits: tokens that differ may have weights that do not.
  std::sort(border.begin(), border.end(), [&](const Candidate& a, const Candidate& b) {
    return logits[a.token] != logits[b.token] ? logits[a.token] > logits[b.token] : a.token < b.token;
  });
  for (const Candidate& candidate : border) {
    ++count;
    mass += candidate.weight;
    if (count >= most || mass >= needed) return {logits[candidate.token], candidate.token};
  }
  return {logits[border.back().token], border.back().token};
}

// The first of the candidates, in the order of their ids, at which the sum of weights passes `target`.
int32_t draw_among(const std::vector<Candidate>& candidates, double target) {
  double sum = 0.0;
  for (const Candidate& candidate : candidates) {
    sum += candidate.weight;
    if (target < sum) return candidate.token;
  }
  return candidates.back().token;
}

// The same among all tokens, with the help of the sums of blocks.
int32_t draw_among_all(const std::vector<float>& weights, const std::vector<float>& sums, int64_t vocab,
                       double target) {
  size_t block = 0;
  while (block + 1 < sums.size() && target >= sums[block]) target -= sums[block++];
  int64_t last = -1;  // with any weight, in case rounding left the target beyond the block
  const int64_t start = static_cast<int64_t>(block) * kBlock;
  for (int64_t i = start; i < std::min(start + kBlock, vocab); ++i) {
    if (weights[static_cast<size_t>(i)] == 0.0F) continue;
    last = i;
    target -= weights[static_cast<size_t>(i)];
    if (target < 0.0) break;
  }
  // An empty block: the last token before it.
  for (int64_t i = start - 1; last < 0 && i >= 0; --i) {
    if (weights[static_cast<size_t>(i)] != 0.0F) last = i;
  }
  return static_cast<int32_t>(last);
}

}  // namespace

int32_t choose_token(const float* logits, int64_t vocab, const SamplingParams& params, int64_t index) {
  const RowKernels& kernels = row_kernels();
  const float highest = kernels.max(logits, vocab);
  if (params.greedy() || !std::isfinite(highest)) {
    const float* best = std::find(logits, logits + vocab, highest);
    return best == logits + vocab ? 0 : static_cast<int32_t>(best - logits);
  }

  thread_local std::vector<float> weights;
  thread_local std::vector<float> sums;
  weights.resize(static_cast<size_t>(vocab));
  sums.resize(static_cast<size_t>(num_blocks(vocab)));
  kernels.weigh(logits, vocab, highest, 1.0F / params.temperature, weights.data(), sums.data());
  const double total = std::accumulate(sums.begin(), sums.end(), 0.0);
  const double draw = random_uniform(params.seed, 0, static_cast<uint64_t>(index));

  const bool filters = (params.top_k > 0 && params.top_k < vocab) || params.top_p < 1.0F;
  if (!filters && params.min_p <= 0.0F) return draw_among_all(weights, sums, vocab, draw * total);

  const Border border = filters ? find_border(logits, weights.data(), vocab, params, total) : Border{};
  thread_local std::vector<Candidate> candidates;
  candidates.clear();
  double kept = 0.0;
  for (int64_t i = 0; i < vocab; ++i) {
    const float weight = weights[static_cast<size_t>(i)];
    const auto token = static_cast<int32_t>(i);
    if (weight == 0.0F || weight < params.min_p || !border.lets_in(logits[i], token)) continue;
    candidates.push_back({weight, token});
    kept += weight;
  }
  return draw_among(candidates, draw * kept);
}

void sample_rows(ThreadPool& pool, const device::Tensor& logits, std::span<const SlotSampler* const> slots,
                 std::span<TokenOutput> outputs) {
  device::check_tensor("logits", logits, device::DType::kF32, {static_cast<int64_t>(slots.size()), -1});
  FATHOM_CHECK_EQ(slots.size(), outputs.size());
  const int64_t vocab = logits.dim(1);
  pool.parallel_for(logits.dim(0), 1, [&](int64_t begin, int64_t end, int) {
    std::vector<std::pair<int32_t, float>> changed;
    for (int64_t r = begin; r < end; ++r) {
      const SlotSampler& slot = *slots[static_cast<size_t>(r)];
      float* row = logits.row<float>(r);
      changed.clear();
      if (slot.adjusts()) slot.adjust(row, vocab, slot.logprobs().output ? &changed : nullptr);
      const int32_t token = choose_token(row, vocab, slot.params(), slot.generated());
      TokenOutput& output = outputs[static_cast<size_t>(r)];
      if (slot.logprobs().output) {
        for (const auto& [id, value] : changed) row[id] = value;
        output = describe_token(row, vocab, token, slot.logprobs());
      } else {
        output = {};
        output.token = token;
      }
    }
  });
}

}  // namespace fathom::sample

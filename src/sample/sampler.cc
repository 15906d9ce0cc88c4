#include "sample/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/random.h"
#include "sample/logprobs.h"

namespace fathom::sample {
namespace {

struct Candidate {
  float weight;  // probability, up to a common factor
  int32_t token;
};

// Most likely first; the lower id first among equals.
bool before(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.token < b.token;
}

double total_weight(std::span<const Candidate> candidates) {
  double sum = 0.0;
  for (const auto& candidate : candidates) sum += candidate.weight;
  return sum;
}

// Moves the smallest set of the most likely candidates whose weight reaches `needed` to the front and returns
// its size. A quickselect by weight instead of by rank: linear on average, no full sort.
size_t select_weight(std::vector<Candidate>& candidates, double needed) {
  constexpr size_t kSortBelow = 32;
  size_t low = 0;
  size_t high = candidates.size();
  while (high - low > kSortBelow) {
    const auto first = candidates.begin() + static_cast<ptrdiff_t>(low);
    const auto last = candidates.begin() + static_cast<ptrdiff_t>(high);
    const auto middle = first + (last - first) / 2;
    std::nth_element(first, middle, last, before);
    const double upper = total_weight({first, middle});
    if (upper >= needed) {
      high = static_cast<size_t>(middle - candidates.begin());
    } else {
      needed -= upper;
      low = static_cast<size_t>(middle - candidates.begin());
    }
  }
  std::sort(candidates.begin() + static_cast<ptrdiff_t>(low),
            candidates.begin() + static_cast<ptrdiff_t>(high), before);
  while (low < high) {
    needed -= candidates[low++].weight;
    if (needed <= 0.0) break;
  }
  return low;
}

int32_t arg_max(const float* logits, int64_t vocab) {
  return static_cast<int32_t>(std::max_element(logits, logits + vocab) - logits);
}

}  // namespace

int32_t choose_token(const float* logits, int64_t vocab, const SamplingParams& params, int64_t index) {
  const int32_t best = arg_max(logits, vocab);
  const float highest = logits[best];
  if (params.greedy() || !std::isfinite(highest)) return best;

  // Tokens whose weights together are below the resolution of the draw (2^-24) cannot be drawn: skip their
  // exp.
  const float scale = 1.0F / params.temperature;
  const float cutoff = -std::log(static_cast<float>(vocab)) - 24.0F * 0.6931472F;
  thread_local std::vector<Candidate> candidates;
  candidates.clear();
  for (int64_t i = 0; i < vocab; ++i) {
    const float exponent = (logits[i] - highest) * scale;
    if (exponent >= cutoff) candidates.push_back({std::exp(exponent), static_cast<int32_t>(i)});
  }

  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < candidates.size()) {
    std::nth_element(candidates.begin(), candidates.begin() + params.top_k, candidates.end(), before);
    candidates.resize(static_cast<size_t>(params.top_k));
    // nth_element leaves the front in no particular order: a fixed one makes the draw repeatable.
    std::sort(candidates.begin(), candidates.end(),
              [](const auto& a, const auto& b) { return a.token < b.token; });
  }
  if (params.top_p < 1.0F) {
    candidates.resize(select_weight(candidates, params.top_p * total_weight(candidates)));
    std::sort(candidates.begin(), candidates.end(),
              [](const auto& a, const auto& b) { return a.token < b.token; });
  }

  if (params.min_p > 0.0F) {  // the most likely token weighs 1
    std::erase_if(candidates, [&](const Candidate& candidate) { return candidate.weight < params.min_p; });
  }

  const double draw = random_uniform(params.seed, 0, static_cast<uint64_t>(index)) * total_weight(candidates);
  double sum = 0.0;
  for (const auto& candidate : candidates) {
    sum += candidate.weight;
    if (draw < sum) return candidate.token;
  }
  return candidates.back().token;
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
      if (slot.adjusts()) slot.adjust(row, vocab, &changed);
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

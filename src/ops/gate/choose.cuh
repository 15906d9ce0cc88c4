// How the experts of a token are chosen (ops/gate/gate.h has the rules): by a whole CTA, or in pieces for a
// kernel that has several tokens.
#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "base/check.h"
#include "device/cuda/launch_kernel.h"
#include "ops/gate/cuda.h"

namespace fathom::ops::cuda {

inline constexpr int kMaxGateExperts = 1024;
inline constexpr int kMaxGateThreads = 256;

namespace gate_detail {

using Scoring = GateParams::Scoring;
using Method = GateParams::Method;

constexpr int kWarp = 32;
constexpr unsigned kAll = 0xffffffffU;

__device__ inline float out() {
  return -INFINITY;
}
__device__ inline float known(float value) {
  return isnan(value) ? out() : value;
}

// Unsigned numbers in the order of the floats, all above 0; both zeros are one.
__device__ inline uint32_t key_of(float value) {
  const uint32_t bits = __float_as_uint(known(value) + 0.0F);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

// A token's place in shared memory.
struct Row {
  float* scores;        // [E]
  float* choice;        // [E]
  float* group_scores;  // [groups]
  uint32_t* kept;       // [ceil(groups / 32)] bits of the groups that stay
  float* sources;       // [K]
};
// In gate_words() floats.
__device__ inline Row row_in(float* shared, const GateParams& params) {
  Row row{};
  row.scores = shared;
  row.choice = row.scores + params.experts;
  row.group_scores = row.choice + params.experts;
  row.sources = row.group_scores + params.groups;
  row.kept = reinterpret_cast<uint32_t*>(row.sources + params.top_k);
  return row;
}

// Exponentials in double, so that every processor makes the same choice (gate.cc).
__device__ inline float sigmoid(float logit) {
  return static_cast<float>(1.0 / (1.0 + exp(-static_cast<double>(logit))));
}
__device__ inline double above_top(float logit, float top) {
  return exp(static_cast<double>(logit) - static_cast<double>(top));
}
// What an expert is chosen by.
__device__ inline float choice_of(float score, const float* bias, int expert, const GateParams& params) {
  return params.method == Method::kNoAuxTc ? score + bias[expert] : score;
}

// The largest logit, or the sum, over the CTA; all threads call it.
template <class T, class Combine>
__device__ T reduce(T value, const Combine& combine) {
  __shared__ T warps[kMaxGateThreads / kWarp];
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) value = combine(value, __shfl_xor_sync(kAll, value, step));
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = warps[0];
  for (unsigned w = 1; w < blockDim.x / kWarp; ++w) value = combine(value, warps[w]);
  return value;
}

__device__ inline void score(const float* logits, const float* bias, const GateParams& params,
                             const Row& row) {
  const auto begin = static_cast<int>(threadIdx.x), step = static_cast<int>(blockDim.x);
  float top = out();
  double sum = 0.0;
  if (params.scoring == Scoring::kSoftmax) {
    for (int e = begin; e < params.experts; e += step) top = fmaxf(top, logits[e]);
    top = reduce(top, [](float a, float b) { return fmaxf(a, b); });
    for (int e = begin; e < params.experts; e += step) sum += above_top(logits[e], top);
    sum = reduce(sum, [](double a, double b) { return a + b; });
  }
  for (int e = begin; e < params.experts; e += step) {
    row.scores[e] = params.scoring == Scoring::kSigmoid ? sigmoid(logits[e])
                                                        : static_cast<float>(above_top(logits[e], top) / sum);
    row.choice[e] = choice_of(row.scores[e], bias, e, params);
  }
  __syncthreads();
}

// Scores of all groups into row.group_scores: a group counts by its best, or the sum of its two best,
// members. Several lanes share a group when there are few.
__device__ inline void score_groups(const GateParams& params, bool two, int lane, const Row& row) {
  const int size = params.experts / params.groups;
  int share = 1;
  while (share * 2 * params.groups <= kWarp) share *= 2;
  const int at_once = kWarp / share;
  for (int base = 0; base < params.groups; base += at_once) {
    const int group = base + lane / share;
    float first = out(), second = out();
    if (group < params.groups) {
      for (int i = lane % share; i < size; i += share) {
        const float member = known(row.choice[group * size + i]);
        second = fmaxf(second, fminf(first, member));
        first = fmaxf(first, member);
      }
    }
    for (int step = share / 2; step > 0; step /= 2) {
      const float other_first = __shfl_xor_sync(kAll, first, step);
      const float other_second = __shfl_xor_sync(kAll, second, step);
      second = fmaxf(fminf(first, other_first), fmaxf(second, other_second));
      first = fmaxf(first, other_first);
    }
    if (group < params.groups && lane % share == 0) {
      row.group_scores[group] = known(two && size > 1 ? first + second : first);
    }
  }
}

// Bits of the groups before which fewer than top_groups come.
__device__ inline void choose_groups(const GateParams& params, int lane, const Row& row) {
  for (int base = 0; base < params.groups; base += kWarp) {
    const int group = base + lane;
    const float own = group < params.groups ? row.group_scores[group] : out();
    int before = 0;
    for (int g = 0; g < params.groups; ++g) {
      const float other = row.group_scores[g];
      before += static_cast<int>(other > own || (other == own && g < group));
    }
    const unsigned bits = __ballot_sync(kAll, before < params.top_groups);
    if (lane == 0) row.kept[base / kWarp] = bits;
  }
}

__device__ inline float value_of(uint32_t key) {
  return __uint_as_float((key & 0x80000000U) != 0 ? key ^ 0x80000000U : ~key);
}

// Groups of 32, of each of which a lane has one member's key: bits of those that stay, as score_groups and
// choose_groups choose them.
template <int kItems>
__device__ unsigned choose_groups_of_32(const GateParams& params, bool two, int lane,
                                        const uint32_t (&keys)[kItems]) {
  float scores[kItems];
#pragma unroll
  for (int g = 0; g < kItems; ++g) {
    const uint32_t first = __reduce_max_sync(kAll, keys[g]);
    const bool best = __ffs(static_cast<int>(__ballot_sync(kAll, keys[g] == first))) - 1 == lane;
    const uint32_t second = __reduce_max_sync(kAll, best ? 0 : keys[g]);
    scores[g] = known(two ? value_of(first) + value_of(second) : value_of(first));
  }
  unsigned kept = 0;
#pragma unroll
  for (int g = 0; g < kItems; ++g) {
    int before = 0;
#pragma unroll
    for (int other = 0; other < kItems; ++other) {
      if (other < params.groups)
        before += static_cast<int>(other < g ? scores[other] >= scores[g] : scores[other] > scores[g]);
    }
    if (before < params.top_groups) kept |= 1U << g;
  }
  return kept;
}

// Chooses by the scores and choices in the row, by a whole warp; ids may be in shared memory. kItems: experts
// of a lane.
template <int kItems>
__device__ void choose_scored(const GateParams& params, const Row& row, int32_t* ids, float* weights) {
  const auto lane = static_cast<int>(threadIdx.x % kWarp);
  const bool two = params.method == Method::kNoAuxTc;
  // Keys of what may still be chosen; 0 when taken or not there. Where the bias took part in the choice, it
  // does not in the weights.
  uint32_t keys[kItems];
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int e = i * kWarp + lane;
    keys[i] = e < params.experts ? key_of(row.choice[e]) : 0;
  }
  const uint32_t left_out = key_of(two ? out() : 0.0F);
  if (params.method != Method::kGreedy && kItems <= 8 && params.experts == params.groups * kWarp) {
    const unsigned kept = choose_groups_of_32(params, two, lane, keys);
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      if (i >= params.groups || (kept >> i & 1U) != 0) continue;
      keys[i] = left_out;
      if (!two) row.scores[i * kWarp + lane] = 0.0F;
    }
  } else if (params.method != Method::kGreedy) {
    score_groups(params, two, lane, row);
    __syncwarp();
    choose_groups(params, lane, row);
    __syncwarp();
    const int size = params.experts / params.groups;
    int group = lane / size, member = lane - group * size;  // of the lane's expert
    const int groups_on = kWarp / size, members_on = kWarp - groups_on * size;
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const int e = i * kWarp + lane;
      if (e < params.experts && (row.kept[group / kWarp] >> (group % kWarp) & 1U) == 0) {
        keys[i] = left_out;
        if (!two) row.scores[e] = 0.0F;
      }
      group += groups_on;  // counted: a division for each would be half of this loop's code
      member += members_on;
      if (member >= size) {
        member -= size;
        ++group;
      }
    }
  }
  __syncwarp();
  unsigned chosen = 0;
  for (int k = 0; k < params.top_k; ++k) {
    uint32_t highest[kItems];  // by halves: one comparison after another would be a long chain
#pragma unroll
    for (int i = 0; i < kItems; ++i) highest[i] = keys[i];
#pragma unroll
    for (int step = 1; step < kItems; step *= 2) {
#pragma unroll
      for (int i = 0; i + step < kItems; i += 2 * step) highest[i] = max(highest[i], highest[i + step]);
    }
    const uint32_t best_key = __reduce_max_sync(kAll, highest[0]);
    unsigned candidate = 0xffffffffU;
#pragma unroll
    for (int i = kItems - 1; i >= 0; --i) {
      if (keys[i] == best_key) candidate = static_cast<unsigned>(i * kWarp + lane);
    }
    const unsigned best = __reduce_min_sync(kAll, candidate);
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      if (best == static_cast<unsigned>(i * kWarp + lane)) keys[i] = 0;
    }
    if (lane == k % kWarp) chosen = best;
    if (k % kWarp == kWarp - 1 || k == params.top_k - 1) {  // a choice a lane
      const int at = k - k % kWarp + lane;
      if (at <= k) {
        row.sources[at] = row.scores[chosen];
        ids[at] = static_cast<int32_t>(chosen);
      }
    }
  }
  __syncwarp();
  double factor = static_cast<double>(params.scaling);
  if (params.normalise) {
    double sum = 0.0;
    for (int k = 0; k < params.top_k; ++k) sum += static_cast<double>(row.sources[k]);
    factor /= sum + 1e-20;
  }
  for (int k = lane; k < params.top_k; k += kWarp) {
    weights[k] = static_cast<float>(static_cast<double>(row.sources[k]) * factor);
  }
}

}  // namespace gate_detail

// One token, by a whole CTA of up to kMaxGateThreads threads; gate_words() floats of shared memory. The ids
// are in ids[0 .. K), the best first, when this ends, but for the first warp only after a barrier. kItems:
// experts of a lane of the warp that chooses.
template <int kItems>
__device__ void choose_experts(const float* logits, const float* bias, const GateParams& params,
                               float* shared, int32_t* ids, float* weights) {
  const gate_detail::Row row = gate_detail::row_in(shared, params);
  gate_detail::score(logits, bias, params, row);
  if (threadIdx.x < gate_detail::kWarp) gate_detail::choose_scored<kItems>(params, row, ids, weights);
}

// Checks what a call of choose_experts needs of its arguments.
inline void check_gate(const GateArgs& args) {
  const GateParams& params = args.params;
  FATHOM_CHECK(0 < params.experts && params.experts <= kMaxGateExperts, "{} experts: 1 .. {}", params.experts,
               kMaxGateExperts);
  FATHOM_CHECK(0 < params.top_k && params.top_k <= params.experts && params.groups > 0 &&
                   params.experts % params.groups == 0 && 0 < params.top_groups &&
                   params.top_groups <= params.groups,
               "top {} of {} experts, {} of {} groups", params.top_k, params.experts, params.top_groups,
               params.groups);
  FATHOM_CHECK((args.bias != nullptr) == (params.method == GateParams::Method::kNoAuxTc),
               "bias is for noaux_tc");
}

__host__ __device__ inline int gate_words(const GateParams& params) {
  return 2 * params.experts + params.groups + params.top_k + (params.groups + 31) / 32;
}
inline int gate_threads(const GateParams& params) {
  return std::min((params.experts + 31) / 32 * 32, kMaxGateThreads);
}
// Calls launch with choose_experts's kItems, a constant.
template <class Launch>
void with_gate_items(const GateParams& params, const Launch& launch) {
  const int items = (params.experts + 31) / 32;
  if (items <= 2) {
    launch(std::integral_constant<int, 2>{});
  } else if (items <= 5) {
    launch(std::integral_constant<int, 5>{});
  } else if (items <= 8) {
    launch(std::integral_constant<int, 8>{});
  } else if (items <= 16) {
    launch(std::integral_constant<int, 16>{});
  } else {
    launch(std::integral_constant<int, 32>{});
  }
}

}  // namespace fathom::ops::cuda

#include <cmath>

#include "base/check.h"
#include "ops/gate/cuda.h"

namespace fathom::ops::cuda {
namespace {

using Scoring = GateParams::Scoring;
using Method = GateParams::Method;

constexpr int kWarps = 4;  // of a CTA, a token each
constexpr int kWarp = 32;
constexpr unsigned kAll = 0xffffffffU;
constexpr int kMaxExperts = 1024;

__device__ float out() {
  return -INFINITY;
}
__device__ float known(float value) {
  return isnan(value) ? out() : value;
}

// Unsigned numbers in the order of the floats, all above 0; both zeros are one.
__device__ uint32_t key_of(float value) {
  const uint32_t bits = __float_as_uint(known(value) + 0.0F);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

__device__ double warp_sum(double value) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAll, value, step);
  return value;
}

// One token's shared memory: [E] choice, then [groups] and, later, [K] sources.
struct Row {
  float* choice;
  float* group_scores;
  float* sources;
};

// A lane's scores are those of experts lane, lane + 32, ...: exponentials in double, so that every processor
// makes the same choice (gate.cc).
template <int kItems>
__device__ void score(const float* logits, const GateParams& params, int lane, float (&scores)[kItems]) {
  float values[kItems];
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int e = i * kWarp + lane;
    values[i] = e < params.experts ? logits[e] : out();
  }
  if (params.scoring == Scoring::kSigmoid) {
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      scores[i] = static_cast<float>(1.0 / (1.0 + exp(-static_cast<double>(values[i]))));
    }
    return;
  }
  float top = values[0];
#pragma unroll
  for (int i = 1; i < kItems; ++i) top = fmaxf(top, values[i]);
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(kAll, top, step));
  double wide[kItems];
  double sum = 0.0;
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const bool inside = i * kWarp + lane < params.experts;
    wide[i] = inside ? exp(static_cast<double>(values[i]) - static_cast<double>(top)) : 0.0;
    sum += wide[i];
  }
  sum = warp_sum(sum);
#pragma unroll
  for (int i = 0; i < kItems; ++i) scores[i] = static_cast<float>(wide[i] / sum);
}

// Scores of all groups into row.group_scores: a group counts by its best, or the sum of its two best,
// members. Several lanes share a group when there are few.
__device__ void score_groups(const GateParams& params, bool two, int lane, const Row& row) {
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

// Whether fewer than top_groups groups come before this one.
__device__ bool kept(const GateParams& params, const Row& row, int group) {
  const float own = row.group_scores[group];
  int before = 0;
  for (int g = 0; g < params.groups; ++g) {
    const float other = row.group_scores[g];
    before += static_cast<int>(other > own || (other == own && g < group));
  }
  return before < params.top_groups;
}

template <int kItems>
__device__ void limit_groups(const GateParams& params, int lane, const Row& row, float (&choice)[kItems]) {
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    if (i * kWarp + lane < params.experts) row.choice[i * kWarp + lane] = choice[i];
  }
  __syncwarp();
  const bool two = params.method == Method::kNoAuxTc;
  score_groups(params, two, lane, row);
  __syncwarp();
  const int size = params.experts / params.groups;
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int e = i * kWarp + lane;
    if (e < params.experts && !kept(params, row, e / size)) choice[i] = two ? out() : 0.0F;
  }
}

template <int kItems>
__global__ void gate_kernel(const float* logits, const float* bias, GateParams params, int64_t tokens,
                            int32_t* ids, float* weights) {
  extern __shared__ float shared[];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t t = static_cast<int64_t>(blockIdx.x) * kWarps + warp;
  if (t >= tokens) return;
  float* memory = shared + warp * (params.experts + params.groups + params.top_k);
  const Row row{memory, memory + params.experts, memory + params.experts + params.groups};

  float scores[kItems], choice[kItems];
  score<kItems>(logits + t * params.experts, params, lane, scores);
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int e = i * kWarp + lane;
    choice[i] = scores[i];
    if (params.method == Method::kNoAuxTc && e < params.experts) choice[i] += bias[e];
  }
  if (params.method != Method::kGreedy) limit_groups<kItems>(params, lane, row, choice);

  // Keys of what may still be chosen; 0 when taken or not there. Where the bias took part in the choice, it
  // does not in the weights.
  uint32_t keys[kItems];
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    keys[i] = i * kWarp + lane < params.experts ? key_of(choice[i]) : 0;
    if (params.method != Method::kNoAuxTc) scores[i] = choice[i];
  }
  for (int k = 0; k < params.top_k; ++k) {
    uint32_t key = keys[0];
    int mine = 0;
#pragma unroll
    for (int i = 1; i < kItems; ++i) {
      if (keys[i] > key) {
        key = keys[i];
        mine = i;
      }
    }
    const uint32_t best_key = __reduce_max_sync(kAll, key);
    const auto candidate = static_cast<unsigned>(mine * kWarp + lane);
    const unsigned best = __reduce_min_sync(kAll, key == best_key ? candidate : 0xffffffffU);
    if (candidate == best) {
#pragma unroll
      for (int i = 0; i < kItems; ++i) {
        if (i == mine) {
          keys[i] = 0;
          row.sources[k] = scores[i];
        }
      }
      ids[t * params.top_k + k] = static_cast<int32_t>(best);
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
    weights[t * params.top_k + k] = static_cast<float>(static_cast<double>(row.sources[k]) * factor);
  }
}

}  // namespace

void gate(device::cuda::Stream& stream, const GateArgs& args) {
  const GateParams& params = args.params;
  FATHOM_CHECK(0 < params.experts && params.experts <= kMaxExperts, "{} experts: 1 .. {}", params.experts,
               kMaxExperts);
  FATHOM_CHECK(0 < params.top_k && params.top_k <= params.experts && params.groups > 0 &&
                   params.experts % params.groups == 0 && 0 < params.top_groups &&
                   params.top_groups <= params.groups,
               "top {} of {} experts, {} of {} groups", params.top_k, params.experts, params.top_groups,
               params.groups);
  FATHOM_CHECK((args.bias != nullptr) == (params.method == Method::kNoAuxTc), "bias is for noaux_tc");
  if (args.tokens == 0) return;
  const auto blocks = static_cast<unsigned>((args.tokens + kWarps - 1) / kWarps);
  const size_t bytes =
      sizeof(float) * kWarps * static_cast<size_t>(params.experts + params.groups + params.top_k);
  const auto launch = [&](auto kernel) {
    kernel<<<blocks, kWarps * kWarp, bytes, stream.handle()>>>(args.logits, args.bias, params, args.tokens,
                                                               args.ids, args.weights);
  };
  const int items = (params.experts + kWarp - 1) / kWarp;
  if (items <= 2) {
    launch(gate_kernel<2>);
  } else if (items <= 5) {
    launch(gate_kernel<5>);
  } else if (items <= 8) {
    launch(gate_kernel<8>);
  } else if (items <= 16) {
    launch(gate_kernel<16>);
  } else {
    launch(gate_kernel<32>);
  }
  stream.launched("gate");
}

}  // namespace fathom::ops::cuda

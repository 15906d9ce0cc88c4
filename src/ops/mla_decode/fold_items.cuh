// Folding the partial results of a query's items, by whoever needs its output: four in a row to a node, four
// nodes in a row to one of the next level, from the left (split.cuh).
#pragma once

#include "ops/mla_decode/split.cuh"

namespace fathom::ops::cuda {

inline constexpr int kItemFan = 1 << kSplitFanBits;

// Of one head, four columns of its values.
struct Partial {
  float top, sum;
  float4 values;

  __device__ float4 divided() const {
    const float inverse = __frcp_rn(sum);
    return {__fmul_rn(values.x, inverse), __fmul_rn(values.y, inverse), __fmul_rn(values.z, inverse),
            __fmul_rn(values.w, inverse)};
  }
};

__device__ inline Partial fold(const Partial& a, const Partial& b) {
  const Fold fold(a.top, b.top);
  return {fold.top,
          fold(a.sum, b.sum),
          {fold(a.values.x, b.values.x), fold(a.values.y, b.values.y), fold(a.values.z, b.values.z),
           fold(a.values.w, b.values.w)}};
}

// Items [first, first + count) of one query, from the left; of more than four items the first four. `column`:
// of all heads' Dc values.
__device__ inline Partial fold_items(const SplitWorkspace& workspace, int heads, int latent, int first,
                                     int count, int column) {
  const int64_t values = int64_t{heads} * latent;
  Partial loaded[kItemFan];
#pragma unroll
  for (int i = 0; i < kItemFan; ++i) {
    if (i >= count) continue;
    const int64_t slot = first + i;
    const float2* stats = workspace.stats + slot * heads + column / latent;
    loaded[i].top = stats->x;
    loaded[i].sum = stats->y;
    loaded[i].values = *reinterpret_cast<const float4*>(workspace.partial + slot * values + column);
  }
  Partial result = loaded[0];
#pragma unroll
  for (int i = 1; i < kItemFan; ++i) {
    if (i < count) result = fold(result, loaded[i]);
  }
  return result;
}

// The warp's lanes in four parts of eight, each of which has a node of the same columns: of the first `nodes`
// of them the fold, for all parts.
__device__ inline Partial fold_lanes(const Partial& node, int nodes) {
  constexpr int kPlaces = 32 / kItemFan;
  const int place = static_cast<int>(threadIdx.x) % kPlaces;
  const auto of_part = [&](int part) {
    const auto from = [&](float value) { return __shfl_sync(0xffffffffU, value, place + part * kPlaces); };
    return Partial{from(node.top),
                   from(node.sum),
                   {from(node.values.x), from(node.values.y), from(node.values.z), from(node.values.w)}};
  };
  Partial whole = of_part(0);
#pragma unroll
  for (int i = 1; i < kItemFan; ++i) {
    const Partial other = of_part(i);
    if (i < nodes) whole = fold(whole, other);
  }
  return whole;
}

}  // namespace fathom::ops::cuda

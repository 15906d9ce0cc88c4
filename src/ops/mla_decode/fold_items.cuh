// Folding the partial results of a query's items, by whoever needs its output: four in a row to a node, four
// nodes in a row to one of the next level, from the left (split.cuh).
#pragma once

#include "ops/mla_decode/split.cuh"

namespace fathom::ops::cuda {

inline constexpr int kItemFan = 1 << kSplitFanBits;

// Of one head's node four columns of its values.
template <Nodes kNodes>
struct Partial {
  float top, sum;
  float4 values;

  // From place `at` of the workspace's values.
  __device__ void load(const SplitWorkspace& workspace, int64_t at) {
    if constexpr (kNodes == Nodes::kMeans)
      unpack(*reinterpret_cast<const uint2*>(static_cast<const __half*>(workspace.partial) + at));
    else
      values = *reinterpret_cast<const float4*>(static_cast<const float*>(workspace.partial) + at);
  }
  // As means are before they are folded.
  __device__ void round() { unpack({pack_means(values.x, values.y), pack_means(values.z, values.w)}); }
  // The last node's.
  __device__ float4 output() const {
    if constexpr (kNodes == Nodes::kMeans) return values;
    const float inverse = __frcp_rn(sum);
    return {__fmul_rn(values.x, inverse), __fmul_rn(values.y, inverse), __fmul_rn(values.z, inverse),
            __fmul_rn(values.w, inverse)};
  }

 private:
  __device__ void unpack(const uint2& pairs) {
    const float2 low = unpack_means(pairs.x), high = unpack_means(pairs.y);
    values = {low.x, low.y, high.x, high.y};
  }
};

template <class Rule>
__device__ inline float4 fold_values(const Rule& fold, const float4& a, const float4& b) {
  return {fold(a.x, b.x), fold(a.y, b.y), fold(a.z, b.z), fold(a.w, b.w)};
}
template <Nodes kNodes>
__device__ inline Partial<kNodes> fold(Partial<kNodes> a, Partial<kNodes> b) {
  if constexpr (kNodes == Nodes::kMeans) {
    const MeanFold fold(a.top, a.sum, b.top, b.sum);
    a.round();
    b.round();
    return {fold.top, fold.sum, fold_values(fold, a.values, b.values)};
  } else {
    const Fold fold(a.top, b.top);
    return {fold.top, fold(a.sum, b.sum), fold_values(fold, a.values, b.values)};
  }
}

// Items [first, first + count) of one query, from the left; of more than four items the first four. `column`:
// of all heads' Dc values.
template <Nodes kNodes>
__device__ inline Partial<kNodes> fold_items(const SplitWorkspace& workspace, int heads, int latent,
                                             int first, int count, int column) {
  const int64_t values = int64_t{heads} * latent;
  Partial<kNodes> loaded[kItemFan];
#pragma unroll
  for (int i = 0; i < kItemFan; ++i) {
    if (i >= count) continue;
    const int64_t slot = first + i;
    const float2* stats = workspace.stats + slot * heads + column / latent;
    loaded[i].top = stats->x;
    loaded[i].sum = stats->y;
    loaded[i].load(workspace, slot * values + column);
  }
  Partial<kNodes> result = loaded[0];
#pragma unroll
  for (int i = 1; i < kItemFan; ++i) {
    if (i < count) result = fold(result, loaded[i]);
  }
  return result;
}

// The warp's lanes in four parts of eight, each of which has a node of the same columns: of the first `nodes`
// of them the fold, for all parts.
template <Nodes kNodes>
__device__ inline Partial<kNodes> fold_lanes(const Partial<kNodes>& node, int nodes) {
  constexpr int kPlaces = 32 / kItemFan;
  const int place = static_cast<int>(threadIdx.x) % kPlaces;
  const auto of_part = [&](int part) {
    const auto from = [&](float value) { return __shfl_sync(0xffffffffU, value, place + part * kPlaces); };
    return Partial<kNodes>{
        from(node.top),
        from(node.sum),
        {from(node.values.x), from(node.values.y), from(node.values.z), from(node.values.w)}};
  };
  Partial<kNodes> whole = of_part(0);
#pragma unroll
  for (int i = 1; i < kItemFan; ++i) {
    const Partial<kNodes> other = of_part(i);
    if (i < nodes) whole = fold(whole, other);
  }
  return whole;
}

}  // namespace fathom::ops::cuda

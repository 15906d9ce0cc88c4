// What a token's experts have answered, added up by whoever needs the sum: expert_combine(), or a sum over
// ranks that begins with it.
#pragma once

#include "ops/moe/cuda.h"
#include "ops/vector/cuda.cuh"

namespace fathom::ops::cuda {

// X: of the routed experts' rows; S: of the shared ones'.
template <class X, class S>
struct ExpertRows {
  const X* rows;
  int64_t stride;
  const float* weights;
  const int32_t* places;
  const int32_t* positions;
  int32_t top_k;
  const S* shared;
  int64_t shared_stride;

  explicit ExpertRows(const ExpertCombineArgs& args)
      : rows(static_cast<const X*>(args.rows.data)),
        stride(args.rows.stride),
        weights(args.weights),
        places(args.places),
        positions(args.positions),
        top_k(args.top_k),
        shared(static_cast<const S*>(args.shared.data)),
        shared_stride(args.shared.stride) {}

  __device__ bool is_padding(int64_t t) const { return positions != nullptr && positions[t] < 0; }

  // Token t's part at column `first`. kTopK == 0: top_k is known at run time only.
  template <int kTopK, bool kVectors>
  __device__ Floats sum(int64_t t, int64_t first, int64_t width) const {
    Floats sum{};
    const auto add = [&](const Floats& row, float weight) {
#pragma unroll
      for (int i = 0; i < kPart; ++i) sum.v[i] = fmaf(weight, row.v[i], sum.v[i]);
    };
    if constexpr (kTopK > 0) {
      Floats loaded[kTopK];  // all on their way before the first is used
#pragma unroll
      for (int k = 0; k < kTopK; ++k) {
        const int32_t place = places[t * kTopK + k];
        if (place >= 0) loaded[k] = load_part<kVectors>(rows + place * stride, first, width);
      }
#pragma unroll
      for (int k = 0; k < kTopK; ++k) {
        if (places[t * kTopK + k] >= 0) add(loaded[k], weights[t * kTopK + k]);
      }
    } else {
      for (int32_t k = 0; k < top_k; ++k) {
        const int32_t place = places[t * top_k + k];
        if (place >= 0) add(load_part<kVectors>(rows + place * stride, first, width), weights[t * top_k + k]);
      }
    }
    if (shared != nullptr) {
      const Floats added = load_part<kVectors>(shared + t * shared_stride, first, width);
#pragma unroll
      for (int i = 0; i < kPart; ++i) sum.v[i] += added.v[i];
    }
    return sum;
  }
};

// Whether rows and shared can be read eight values at a time.
inline bool takes_parts(const ExpertCombineArgs& args) {
  return takes_parts(args.rows) && (args.shared.data == nullptr || takes_parts(args.shared));
}

}  // namespace fathom::ops::cuda

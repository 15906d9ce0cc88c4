// The weighted sum of a token's expert outputs.
#pragma once

#include <cstdint>

namespace fathom::ops {

// y[i] (+)= sum over j of weights[j] * rows[row_of[j] * stride + i],in the order of j, for n values;
// row_of[j] of -1 is left out.
struct CombineRow {
  const float* rows;
  int64_t stride;
  const int32_t* row_of;
  const float* weights;
  int64_t choices;
  float* y;
  int64_t n;
  bool accumulate;
};
void combine_row_avx2(const CombineRow& c);

}  // namespace fathom::ops

// What surrounds the experts' GEMMs on the GPU: sorting token copies by expert with counts that stay on the
// device, and adding the experts' answers up again.
#pragma once

#include "device/cuda/stream.h"
#include "ops/cuda_batch.h"
#include "ops/gate/cuda.h"
#include "ops/linear/cuda.h"
#include "ops/rms_norm/cuda.h"

namespace fathom::ops::cuda {

// Copy i = t * K + k of token t goes to expert ids[i]. Sorted by expert, then by copy: row r of the sorted
// order reads token tokens[r], and rows [offsets[e], offsets[e + 1]) belong to expert e. Deterministic.
struct ExpertSort {
  int32_t* offsets = nullptr;  // [E + 1]
  int32_t* tokens = nullptr;   // [T * K] the token t of each sorted row; undefined from offsets[E] on
  int32_t* places = nullptr;   // [T * K] the sorted row of each copy; -1 for one that is left out
};
struct ExpertSortArgs {
  const int32_t* ids = nullptr;  // [T, K]
  const int32_t* positions =
      nullptr;  // [T]: a padding token's (-1) copies are left out; null: none is padding
  // [numbers of all experts]: the expert's place among the E here, or -1: its copies are left out, for others
  // have it. Null: all are here.
  const int32_t* slots = nullptr;
  int64_t tokens = 0;
  int32_t experts = 0, top_k = 0;  // E
  ExpertSort sort;
  int32_t* workspace = nullptr;  // expert_sort_workspace() ints
};
void expert_sort(device::cuda::Stream& stream, const ExpertSortArgs& args);
// 0 where the sort is one CTA's work (T * K up to 2048).
int64_t expert_sort_workspace(int64_t tokens, int32_t experts, int32_t top_k);
// gate(), then expert_sort() of its choices (sort.ids is gate.ids); one launch for a single token.
void gate_and_sort(device::cuda::Stream& stream, const GateArgs& gate, const ExpertSortArgs& sort);
// linear(product), whose y is the logits [T, E] of the gate, then gate_and_sort(); the same bits. One launch
// for few tokens (gate_product.h); what y holds then is undefined. workspace: gate_product_workspace() bytes
// that were all 0xff before the first call, and that nobody else writes. True where one launch did it all,
// which lets the next kernel start once everything before it has ended (GroupedLinearArgs::beside_early).
bool gate_product_and_sort(device::cuda::Stream& stream, const LinearArgs& product, const GateArgs& gate,
                           const ExpertSortArgs& sort, uint64_t* workspace);
int64_t gate_product_workspace(int32_t experts);

// y[t] = sum over k of weights[t, k] * rows[places[t * K + k]], in the order of k and without those of place
// -1, then + shared[t]; in float32. A padding token's row of y is left as it is.
struct ExpertCombineArgs {
  Matrix rows;                     // [T * K, H]
  const float* weights = nullptr;  // [T, K]
  const int32_t* places = nullptr;
  const int32_t* positions = nullptr;  // as above
  int32_t top_k = 0;
  Matrix shared;  // [T, H], or empty
  Matrix y;       // [T, H]
};
void expert_combine(device::cuda::Stream& stream, const ExpertCombineArgs& args);
// The same sum goes into the residual stream, then norm.y is the stream's norm (ops/rms_norm/cuda.h): the
// bits of expert_combine into a float32 `delta`, and add_rms_norm of that. A padding token's residual is left
// as it is. args.y and norm.delta are empty; rows, shared and y of one dtype.
void expert_combine_norm(device::cuda::Stream& stream, const ExpertCombineArgs& args,
                         const AddRmsNormArgs& norm);

}  // namespace fathom::ops::cuda

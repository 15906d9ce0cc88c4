// Which rows go to which expert, and how the experts' products are cut into pieces. Pure functions of the
// ids.
#pragma once

#include <cstdint>

#include "device/tensor.h"
#include "ops/linear/panel_kernel.h"

namespace fathom::ops {

// Rows of an expert in the order of experts: [first, first + rows).
struct ExpertRows {
  int32_t expert = 0;
  int32_t first = 0;
  int32_t rows = 0;
  int32_t prepared_first = 0;  // where its blocks begin among the prepared rows, in rows
};

// Token and choice pairs sorted by expert. All arrays are the caller's.
struct MoePlan {
  int64_t pairs = 0;              // T * K, those left out included
  int64_t active = 0;             // experts with rows
  int64_t prepared_rows = 0;      // of all experts together, each a whole number of blocks
  int32_t* row_of = nullptr;      // [pairs] pair (t, j) at t * K + j -> its sorted row; -1: left out
  int32_t* token_of = nullptr;    // [pairs] sorted row -> its token; undefined after the last row
  ExpertRows* experts = nullptr;  // [active], the one with most rows first

  static int64_t bytes(int64_t pairs, int64_t experts);
};

// `memory` of MoePlan::bytes(T * K, num_experts), aligned to 8.An id outside [-1, num_experts) is a CHECK.
MoePlan plan_moe(const device::Tensor& ids, int64_t num_experts, const PanelKernel& kernel,
                 std::byte* memory);
// What `prepared_rows` can be at most.
int64_t most_prepared_rows(const PanelKernel& kernel, int64_t pairs, int64_t experts);

// `panels` panels of every expert cut into `chunks` pieces of at most `chunk` panels, so that some `pieces`
// in all come out.
struct PanelSplit {
  int64_t chunk = 0;
  int64_t chunks = 0;
};
PanelSplit split_panels(int64_t panels, int64_t active, int64_t pieces);

}  // namespace fathom::ops

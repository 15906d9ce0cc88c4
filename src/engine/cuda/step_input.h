// What a step brings to the GPU, in one copy: the tokens, where they go, and what changed about the slots.
// Laid out for a padded number of tokens, so that a captured graph finds its arrays where they were.
#pragma once

#include <cstdint>
#include <vector>

#include "core/executor.h"
#include "model/cuda/model.h"

namespace fathom::engine::cuda {

// An entry of a slot's block table, or (index -1) the slot's last token.
struct SlotUpdate {
  int32_t slot = 0, index = 0, value = 0;
};

// Byte offsets of a step's arrays within its one buffer. A pure function of the padded counts.
struct StepLayout {
  StepLayout(int64_t tokens, int64_t logit_rows);

  int64_t tokens, logit_rows;
  int64_t ids, positions, slots, places, rows, row_slots;
  int64_t fixed_bytes;  // where updates and extend rows begin
};

// The host's side of one step.
struct StepInput {
  std::vector<int32_t> ids;  // -1: the slot's last token; below: a guess (guess_id)
  std::vector<int32_t> positions, slots;
  std::vector<int64_t> places;
  std::vector<int32_t> logit_rows, row_slots;
  std::vector<SlotUpdate> updates;
  std::vector<ops::cuda::ExtendRow> extend_rows;
  int64_t extend_tokens = 0;
  std::vector<int32_t> first;        // [plan row] its first token
  std::vector<size_t> sampling;      // the plan rows that sample
  std::vector<int32_t> last_places;  // beside `sampling`: the token after which a token is chosen

  void clear();
  // Writes the arrays into `to` as `layout` says, padded with tokens that no op looks at. Returns the bytes
  // used. `passes` get their device rows relative to `device`.
  int64_t write(const StepLayout& layout, std::byte* to, std::byte* device,
                std::vector<model::cuda::ExtendPass>& passes, const SlotUpdate** device_updates) const;
  // What write() needs.
  int64_t bytes(const StepLayout& layout, const std::vector<model::cuda::ExtendPass>& passes) const;
};

// Kernels that turn the brought arrays into what the model reads.
struct SlotTables {
  int32_t* block_tables = nullptr;  // [slots, stride]
  int64_t stride = 0;
  int32_t* last_tokens = nullptr;  // [slots]
  int64_t most_places = 0;         // GpuBatch::most_places of the step
};
void apply_updates(device::cuda::Stream& stream, const SlotTables& tables, const SlotUpdate* updates,
                   int64_t count);
// ids[t] = last_tokens[slots[t]] where it is -1; guesses[i rows + s] where it is guess_id(s, i).
void resolve_tokens(device::cuda::Stream& stream, int32_t* ids, const int32_t* slots,
                    const int32_t* last_tokens, const int32_t* guesses, int64_t rows, int64_t count);

}  // namespace fathom::engine::cuda

// What node 0 tells the engines of other nodes' GPUs (cuda/gpu_nodes.h): its steps, and the masks that it
// found for them; as bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "core/executor.h"

namespace fathom::engine {

// The mask of one choice of a step.
struct MaskRow {
  bool constrains = false;        // false: any token may come
  std::vector<uint64_t> allowed;  // TokenMask::fill's bits
};

struct StepMessage {
  BatchPlan plan;
  bool eager = false;
};
struct MasksMessage {
  uint64_t step = 0;
  std::vector<MaskRow> rows;
};
// One of the two.
struct EngineMessage {
  std::optional<StepMessage> step;
  std::optional<MasksMessage> masks;
};

// Masks' sources do not travel: the slot says only that it has one.
std::string encode_step(const BatchPlan& plan, bool eager);
std::string encode_masks(uint64_t step, const std::vector<MaskRow>& rows);
// Takes any bytes: counts are checked against what is there, slots, pages, positions and tokens against the
// limits. A slot with a mask has one whose begin() must not be called.
Result<EngineMessage> parse_engine_message(std::string_view bytes, const ExecutorLimits& limits);

}  // namespace fathom::engine

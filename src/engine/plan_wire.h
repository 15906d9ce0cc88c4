// What node 0 tells the engines of other nodes' GPUs (cuda/gpu_nodes.h): the steps of each group of requests,
// the masks that it found for them, and the passes that groups compute together; as bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "core/executor.h"
#include "engine/pass_board.h"

namespace fathom::engine {

// The mask of one choice of a step.
struct MaskRow {
  bool constrains = false;        // false: any token may come
  std::vector<uint64_t> allowed;  // TokenMask::fill's bits
};

struct StepMessage {
  int32_t group = 0;
  BatchPlan plan;
  bool eager = false;
};
struct MasksMessage {
  int32_t group = 0;
  uint64_t step = 0;
  std::vector<MaskRow> rows;
};
// PassBoard::Begun.
struct PassMessage {
  PassBoard::Pass pass;
  std::vector<bool> idle;  // [group]
};
// One of them.
struct EngineMessage {
  std::optional<StepMessage> step;
  std::optional<MasksMessage> masks;
  std::optional<PassMessage> pass;
};

// Masks' sources do not travel: the slot says only that it has one.
std::string encode_step(int32_t group, const BatchPlan& plan, bool eager);
std::string encode_masks(int32_t group, uint64_t step, const std::vector<MaskRow>& rows);
std::string encode_pass_begun(const PassBoard::Pass& pass, const std::vector<bool>& idle);
// Takes any bytes: counts are checked against what is there, groups, slots, pages, positions and tokens
// against the limits. A slot with a mask has one whose begin() must not be called.
Result<EngineMessage> parse_engine_message(std::string_view bytes, int32_t groups,
                                           const ExecutorLimits& limits);

}  // namespace fathom::engine

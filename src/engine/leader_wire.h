// What the leader of a group of requests tells node 0 where it is on another node (far_group.h): what its
// next pass is to be, which masks it needs, and answers; as bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/choice_masks.h"
#include "engine/engine.h"
#include "engine/pass_board.h"

namespace fathom::engine {

// A step has come to its choices, some of which need masks.
struct MaskQuestion {
  struct Choice {
    int32_t row = 0;     // of the shape
    int32_t slot = 0;    // whose mask it is
    int32_t chosen = 0;  // tokens of its output before the step
  };
  uint64_t step = 0;
  MaskShape shape;
  int32_t choices = 0;         // of the step
  std::vector<Choice> masked;  // those that need a mask
  std::vector<GuessedRow> guessed;
};

// One of the last three.
struct LeaderMessage {
  int32_t group = 0;
  std::optional<PassBoard::Want> want;
  std::optional<MaskQuestion> question;
  struct Answer {
    StepResult result;  // without errors of rows: those are node 0's to find
    DeviceClock clock;
  };
  std::optional<Answer> answer;
};

std::string encode_want(int32_t group, const PassBoard::Want& want);
std::string encode_question(int32_t group, const MaskQuestion& question);
std::string encode_answer(int32_t group, const StepResult& result, const DeviceClock& clock);
// Takes any bytes: counts are checked against what is there, groups, slots, rows and tokens against the
// limits.
Result<LeaderMessage> parse_leader_message(std::string_view bytes, int32_t groups,
                                           const ExecutorLimits& limits);

}  // namespace fathom::engine

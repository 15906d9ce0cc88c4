// The masks of a step's choices, found by whoever keeps the requests' masks: the engine that computes the
// step, or node 0 where another node leads the group of requests (far_group.h).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "core/executor.h"
#include "engine/plan_wire.h"
#include "sample/guess_tree.h"
#include "sample/mask_workers.h"

namespace fathom::engine {

// Of a row that chooses.
struct ChoiceMasks {
  std::shared_ptr<sample::MaskWorkers::Sequence> sequence;  // null: any token may come
  int64_t chosen = 0;                                       // tokens of its output before the step

  // What find_masks() found.
  sample::GuessTree guesses{};                        // those that are allowed
  std::optional<Error> failure{};                     // of the mask of the first choice
  std::vector<std::pair<int32_t, Error>> failures{};  // of the masks after some of the guesses
};

// How choices lie beside the logits: `width` for each row, row by row or position by position.
struct MaskShape {
  int64_t rows = 0, width = 1;  // rows: padding included
  bool by_row = false;
};

// All that row `row` guesses, allowed or not, perhaps nothing.
struct GuessedRow {
  int64_t row = 0;
  sample::GuessTree guesses;
};

// `choices`: of the first rows of `shape`. A row that goes on from its last token is in `guessed`. Waits for
// the masks, and those for tokens that their sequences are still to be told.
std::vector<MaskRow> find_masks(sample::MaskWorkers& workers, const MaskShape& shape,
                                std::span<ChoiceMasks* const> choices, std::span<const GuessedRow> guessed);

// The error of a mask that failed before one of the row's tokens was chosen, if any.
void note_failure(const ChoiceMasks& choice, RowResult* result);

}  // namespace fathom::engine

#include "engine/choice_masks.h"

namespace fathom::engine {
namespace {

using sample::GuessTree;
using sample::MaskWorkers;

// Of each node of `all`, its node in `part`, which lacks some and what hangs on them; or kNone.
std::vector<int32_t> nodes_in(const GuessTree& part, const GuessTree& all) {
  std::vector<int32_t> nodes;
  for (int32_t i = 0; i < all.size(); ++i) {
    const int32_t parent = all.parents[static_cast<size_t>(i)];
    const int32_t above = parent < 0 ? parent : nodes[static_cast<size_t>(parent)];
    nodes.push_back(above == GuessTree::kNone ? above
                                              : part.child(above, all.tokens[static_cast<size_t>(i)]));
  }
  return nodes;
}

}  // namespace

std::vector<MaskRow> find_masks(MaskWorkers& workers, const MaskShape& shape,
                                std::span<ChoiceMasks* const> choices, std::span<const GuessedRow> guessed) {
  // Guesses that a mask forbids take their places in the step all the same: the token before them is chosen
  // under the mask, so that nothing is chosen after them.
  for (const GuessedRow& row : guessed) {
    ChoiceMasks& choice = *choices[static_cast<size_t>(row.row)];
    if (choice.sequence == nullptr) continue;
    choice.guesses = row.guesses;
    workers.guess(choice.sequence, &choice.guesses);
  }
  struct Masks {
    const MaskWorkers::Found* first = nullptr;
    std::span<const MaskWorkers::Found> after{};  // the guesses that are allowed
    std::vector<int32_t> nodes{};                 // of the guesses among those
  };
  std::vector<Masks> found(static_cast<size_t>(shape.rows));
  for (size_t i = 0; i < choices.size(); ++i) {
    ChoiceMasks& choice = *choices[i];
    if (choice.sequence == nullptr) continue;
    found[i].first = &workers.wait(choice.sequence, choice.chosen);
    if (found[i].first->error) choice.failure = found[i].first->error;
  }
  for (const GuessedRow& row : guessed) {
    ChoiceMasks& choice = *choices[static_cast<size_t>(row.row)];
    if (choice.sequence == nullptr) continue;
    Masks& masks = found[static_cast<size_t>(row.row)];
    masks.after = workers.wait_guessed(choice.sequence);
    masks.nodes = nodes_in(choice.guesses, row.guesses);
    for (size_t node = 0; node < masks.after.size(); ++node) {
      const auto& error = masks.after[node].error;
      if (error) choice.failures.emplace_back(static_cast<int32_t>(node), *error);
    }
  }
  // Place 0 stands for the last token.
  const auto mask_at = [&](int64_t row, int64_t place) -> MaskRow {
    const Masks& masks = found[static_cast<size_t>(row)];
    const MaskWorkers::Found* mask = place == 0 ? masks.first : nullptr;
    if (place > 0 && place <= static_cast<int64_t>(masks.nodes.size())) {
      const auto node = static_cast<size_t>(masks.nodes[static_cast<size_t>(place) - 1]);
      if (node < masks.after.size()) mask = &masks.after[node];
    }
    if (mask == nullptr || !mask->constrains) return {};
    return {true, mask->allowed};
  };
  std::vector<MaskRow> rows;
  const int64_t outer = shape.by_row ? shape.rows : shape.width;
  const int64_t inner = shape.by_row ? shape.width : shape.rows;
  for (int64_t i = 0; i < outer; ++i) {
    for (int64_t j = 0; j < inner; ++j) rows.push_back(shape.by_row ? mask_at(i, j) : mask_at(j, i));
  }
  return rows;
}

void note_failure(const ChoiceMasks& choice, RowResult* result) {
  std::optional<Error> failure = choice.failure;
  size_t failed_at = 0;  // the choice
  int32_t node = GuessTree::kRoot;
  for (size_t i = 0; i < result->outputs.size(); ++i) {
    if (node != GuessTree::kNone) node = choice.guesses.child(node, result->outputs[i].token);
    for (const auto& [failed, error] : choice.failures) {
      if (failed != node) continue;
      failure = error;
      failed_at = i + 1;
    }
  }
  if (failure && result->outputs.size() > failed_at) result->error = failure;
}

}  // namespace fathom::engine

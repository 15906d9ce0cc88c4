// The engine's masks: of each choice of a step, its guesses' too.
#include "engine/cuda/gpu_nodes.h"

namespace fathom::engine::cuda {

void GpuEngine::bring_guesses(Frame& frame, const GuessLayout& guesses) {
  auto* to = static_cast<int32_t*>(frame.guesses.data());
  if (trees()) {
    const int64_t places = guesses.rows * width_;
    const auto bytes = static_cast<size_t>(places) * sizeof(int32_t);
    stream_->copy(to, trees_.place_tokens, bytes);
    stream_->copy(to + places, trees_.place_parents, bytes);
  } else {
    const auto* base = static_cast<const std::byte*>(device_input_.data());
    stream_->copy(to, base + guesses.guesses,
                  static_cast<size_t>(guesses.rows * (width_ - 1)) * sizeof(int32_t));
  }
  stream_->record(frame.drafted);
}

// The guesses of rows with masks. Those that a mask forbids take their places in the step all the same: the
// token before them is chosen under the mask, so that nothing is chosen after them.
void GpuEngine::guess_under_masks(Frame& frame) {
  for (GuessInput::Row& row : guesses_.rows) {
    RowChoice& choice = frame.choices[static_cast<size_t>(row.sampling)];
    if (choice.masks == nullptr) continue;
    row.guessed = width_ > 1 ? drafted_guesses(frame, row) : sample::GuessTree();
    choice.guesses = row.guessed;
    masks_.guess(choice.masks, &choice.guesses);
  }
}

namespace {

// Of each node of `all`, its node in `part`, which lacks some and what hangs on them; or kNone.
std::vector<int32_t> nodes_in(const sample::GuessTree& part, const sample::GuessTree& all) {
  std::vector<int32_t> nodes;
  for (int32_t i = 0; i < all.size(); ++i) {
    const int32_t parent = all.parents[static_cast<size_t>(i)];
    const int32_t above = parent < 0 ? parent : nodes[static_cast<size_t>(parent)];
    nodes.push_back(
        above == sample::GuessTree::kNone ? above : part.child(above, all.tokens[static_cast<size_t>(i)]));
  }
  return nodes;
}

}  // namespace

Result<void> GpuEngine::send_masks(Frame& frame, bool guessed) {
  frame.masks.clear();
  if (leads()) {
    FATHOM_TRY(find_masks(frame, guessed));
  } else {
    for (const FoundMasks::Row& row : found_->take()) {
      if (row.constrains) {
        frame.masks.add_row(row.allowed);
      } else {
        frame.masks.add_free_row();
      }
    }
  }
  frame.masks.send(*stream_, device_masks_);
  return {};
}

// For all ranks.
Result<void> GpuEngine::find_masks(Frame& frame, bool guessed) {
  std::vector<FoundMasks::Row> told;
  if (guessed) FATHOM_TRY(frame.drafted.wait());
  guess_under_masks(frame);
  struct Masks {
    const sample::MaskWorkers::Found* first = nullptr;
    std::span<const sample::MaskWorkers::Found> after{};  // the guesses that are allowed
    std::vector<int32_t> nodes{};                         // of the guesses among those
  };
  std::vector<Masks> found(static_cast<size_t>(frame.stride));
  for (size_t i = 0; i < frame.choices.size(); ++i) {
    if (frame.choices[i].masks == nullptr) continue;
    // `chosen` counts this row's token already.
    const Slot& slot = slots_[static_cast<size_t>(input_.row_slots[i])];
    found[i].first = &masks_.wait(slot.masks, slot.chosen - 1);
    if (found[i].first->error) frame.choices[i].failure = found[i].first->error;
  }
  for (const GuessInput::Row& row : guesses_.rows) {
    const auto i = static_cast<size_t>(row.sampling);
    RowChoice& choice = frame.choices[i];
    if (choice.masks == nullptr) continue;
    found[i].after = masks_.wait_guessed(choice.masks);
    found[i].nodes = nodes_in(choice.guesses, row.guessed);
    for (size_t node = 0; node < found[i].after.size(); ++node) {
      const auto& error = found[i].after[node].error;
      if (error) choice.failures.emplace_back(static_cast<int32_t>(node), *error);
    }
  }
  // Place 0 stands for the last token.
  const auto add = [&](int64_t row, int64_t place) {
    const Masks& masks = found[static_cast<size_t>(row)];
    const sample::MaskWorkers::Found* mask = place == 0 ? masks.first : nullptr;
    if (place > 0 && place <= static_cast<int64_t>(masks.nodes.size())) {
      const auto node = static_cast<size_t>(masks.nodes[static_cast<size_t>(place) - 1]);
      if (node < masks.after.size()) mask = &masks.after[node];
    }
    const bool constrains = mask != nullptr && mask->constrains;
    if (constrains) {
      frame.masks.add_row(mask->allowed);
    } else {
      frame.masks.add_free_row();
    }
    if (found_ != nullptr || others_ != nullptr) {
      told.push_back({constrains, constrains ? mask->allowed : std::vector<uint64_t>()});
    }
  };
  // Beside the logits.
  const bool by_row = trees() && width_ > 1;
  const int64_t outer = by_row ? frame.stride : width_, inner = by_row ? width_ : frame.stride;
  for (int64_t i = 0; i < outer; ++i) {
    for (int64_t j = 0; j < inner; ++j) add(by_row ? i : j, by_row ? j : i);
  }
  if (others_ != nullptr) others_->masks(frame.result.step, told);
  if (found_ != nullptr) found_->give(std::move(told));
  return {};
}

}  // namespace fathom::engine::cuda

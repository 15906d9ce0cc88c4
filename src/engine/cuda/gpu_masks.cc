// The engine's masks: of each choice of a step, its guesses' too.
#include "engine/cuda/gpu_engine.h"

namespace fathom::engine::cuda {

void GpuEngine::bring_guesses(Frame& frame, const GuessLayout& guesses) {
  const auto* base = static_cast<const std::byte*>(device_input_.data());
  stream_->copy(frame.guesses.data(), base + guesses.guesses,
                static_cast<size_t>(guesses.rows * (width_ - 1)) * sizeof(int32_t));
  stream_->record(frame.drafted);
}

// The guesses of rows with masks. Those that a mask forbids take their places in the step all the same: the
// token before them is chosen under the mask, so that nothing is chosen after them.
void GpuEngine::guess_under_masks(Frame& frame) {
  const auto* drafted = static_cast<const int32_t*>(frame.guesses.data());
  for (GuessInput::Row& row : guesses_.rows) {
    const auto& masks = frame.choices[static_cast<size_t>(row.sampling)].masks;
    if (masks == nullptr) continue;
    row.allowed.clear();
    for (int32_t i = 0; i < row.drafts; ++i) {
      row.allowed.extend(lookup_ ? row.guesses[static_cast<size_t>(i)]
                                 : drafted[i * frame.stride + row.sampling]);
    }
    masks_.guess(masks, &row.allowed);
  }
}

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
    std::span<const sample::MaskWorkers::Found> after;  // the guesses
  };
  std::vector<Masks> found(frame.choices.size());
  for (size_t i = 0; i < found.size(); ++i) {
    if (frame.choices[i].masks == nullptr) continue;
    // `chosen` counts this row's token already.
    const Slot& slot = slots_[static_cast<size_t>(input_.row_slots[i])];
    found[i].first = &masks_.wait(slot.masks, slot.chosen - 1);
  }
  for (const GuessInput::Row& row : guesses_.rows) {
    const auto i = static_cast<size_t>(row.sampling);
    if (frame.choices[i].masks != nullptr) found[i].after = masks_.wait_guessed(frame.choices[i].masks);
  }
  for (int64_t position = 0; position < width_; ++position) {
    for (int64_t row = 0; row < frame.stride; ++row) {
      const auto i = static_cast<size_t>(row);
      const sample::MaskWorkers::Found* mask = nullptr;
      if (i < found.size()) {
        const auto guess = static_cast<size_t>(position - 1);
        mask = position == 0                   ? found[i].first
               : guess < found[i].after.size() ? &found[i].after[guess]
                                               : nullptr;
      }
      if (mask != nullptr && mask->error && !frame.choices[i].failure) {
        frame.choices[i].failure = mask->error;
        frame.choices[i].failed_at = position;
      }
      if (mask != nullptr && mask->constrains) {
        frame.masks.add_row(mask->allowed);
      } else {
        frame.masks.add_free_row();
      }
      if (found_ == nullptr) continue;
      FoundMasks::Row& row_told = told.emplace_back();
      row_told.constrains = mask != nullptr && mask->constrains;
      if (row_told.constrains) row_told.allowed = mask->allowed;
    }
  }
  if (found_ != nullptr) found_->give(std::move(told));
  return {};
}

}  // namespace fathom::engine::cuda

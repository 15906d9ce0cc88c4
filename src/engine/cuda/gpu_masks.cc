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

Result<void> GpuEngine::send_masks(Frame& frame, bool guessed) {
  frame.masks.clear();
  std::vector<MaskRow> mine;
  if (leads()) {
    if (guessed) FATHOM_TRY(frame.drafted.wait());
    const MaskShape shape{frame.stride, width_, trees() && width_ > 1};
    std::vector<GuessedRow> rows;
    for (const GuessInput::Row& row : guesses_.rows) {
      if (!slots_[static_cast<size_t>(row.slot)].constrained) continue;
      rows.push_back({row.sampling, width_ > 1 ? drafted_guesses(frame, row) : sample::GuessTree()});
    }
    if (finds_masks()) {
      mine = find_masks(frame, shape, rows);
    } else {
      ask_node_zero(frame, shape, std::move(rows));
    }
  }
  for (const MaskRow& row : finds_masks() ? mine : found_->take()) {
    if (row.constrains) {
      frame.masks.add_row(row.allowed);
    } else {
      frame.masks.add_free_row();
    }
  }
  frame.masks.send(*stream_, device_masks_);
  if (finds_masks() && found_ != nullptr) found_->give(std::move(mine));
  return {};
}

// For all ranks.
std::vector<MaskRow> GpuEngine::find_masks(Frame& frame, const MaskShape& shape,
                                           const std::vector<GuessedRow>& guessed) {
  std::vector<ChoiceMasks*> choices;
  for (RowChoice& choice : frame.choices) choices.push_back(&choice.masks);
  auto rows = engine::find_masks(masks_, shape, choices, guessed);
  if (others_ != nullptr) others_->masks(place_.group, frame.result.step, rows);
  return rows;
}

void GpuEngine::ask_node_zero(const Frame& frame, const MaskShape& shape, std::vector<GuessedRow> guessed) {
  MaskQuestion question;
  question.step = frame.result.step;
  question.shape = shape;
  question.choices = static_cast<int32_t>(frame.choices.size());
  for (size_t i = 0; i < frame.choices.size(); ++i) {
    const int32_t slot = input_.row_slots[i];
    if (!slots_[static_cast<size_t>(slot)].constrained) continue;
    question.masked.push_back(
        {static_cast<int32_t>(i), slot, static_cast<int32_t>(frame.choices[i].masks.chosen)});
  }
  question.guessed = std::move(guessed);
  zero_->tell(encode_question(place_.group, question));
}

}  // namespace fathom::engine::cuda

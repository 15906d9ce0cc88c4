// The choice of a step's tokens, position by position: sample/verify.h is the specification.
#include "engine/cuda/gpu_engine.h"

namespace fathom::engine::cuda {

void GpuEngine::choose(const StepLayout& layout, const GuessLayout& guesses, bool draws, bool masked) {
  if (guesses.rows == 0) return;
  if (chooses()) sample_rows(layout, guesses, draws, masked);
  if (!hands_back_later()) model_->hand_back(*stream_, chosen_);
  if (!drafts_layer()) return;
  if (trees() && width_ > 1) {
    model_->hand_back(*stream_, tree_choices(guesses.rows));
    auto* memory = static_cast<std::byte*>(device_input_.data());
    const SettledStates states{reinterpret_cast<int32_t*>(memory + guesses.keep_from),
                               reinterpret_cast<int32_t*>(memory + guesses.keep_to)};
    settle_trees(*stream_, trees_, tree_rows(guesses), device_tokens_, states, cache_, model_->num_layers(),
                 tables_);
  }
  keep_states(guesses);
}

void GpuEngine::sample_rows(const StepLayout& layout, const GuessLayout& guesses, bool draws, bool masked) {
  const int64_t rows = guesses.rows;
  const bool branches = trees() && width_ > 1;
  const auto* base = static_cast<const std::byte*>(device_input_.data());
  const auto* row_slots = reinterpret_cast<const int32_t*>(base + layout.row_slots);
  for (int32_t position = 0; position < choices(); ++position) {
    const bool last = position + 1 == choices();
    sample::cuda::SampleArgs args;
    args.logits = model_->last_logits() + (branches ? 0 : position * rows * limits_.vocab_size);
    if (branches) args.logit_rows = trees_.logit_rows + position * rows;
    args.adjusted = adjusted_;
    args.rows = rows;
    args.row_slots = row_slots;
    args.last_tokens = tables_.last_tokens;
    args.tokens = device_tokens_ + position * rows;
    args.draws = draws;
    args.allowed = masked ? device_masks_.allowed : nullptr;
    args.allowed_rows = device_masks_.rows + (branches ? 0 : position * rows);
    if (thresholds_ && width_ > 1 && !last) {
      args.guesses = branches ? shape_.branches : 1;
      args.guessed = branches ? trees_.guessed + position * rows * shape_.branches
                              : reinterpret_cast<const int32_t*>(base + guesses.guesses) + position * rows;
      args.threshold_single = static_cast<float>(thresholds_->single);
      args.threshold_acc = static_cast<float>(thresholds_->acc);
    }
    sampler_->sample(args);
    if (!last) row_slots = follow(guesses, position, row_slots);
  }
}

const int32_t* GpuEngine::follow(const GuessLayout& guesses, int32_t position, const int32_t* row_slots) {
  const auto* base = static_cast<const std::byte*>(device_input_.data());
  const int64_t rows = guesses.rows;
  int32_t* next_slots = step_slots_ + position * rows;
  if (trees()) {
    sample::cuda::FollowTreeArgs args;
    args.rows = rows;
    args.width = width_;
    args.tokens = device_tokens_ + position * rows;
    args.row_slots = row_slots;
    args.logit_rows = trees_.logit_rows + position * rows;
    args.place_tokens = trees_.place_tokens;
    args.place_parents = trees_.place_parents;
    args.next_slots = next_slots;
    args.next_logit_rows = trees_.logit_rows + (position + 1) * rows;
    args.each = shape_.branches;
    args.next_guessed = trees_.guessed + (position + 1) * rows * args.each;
    args.simulated = simulated_acceptance_;
    sampler_->follow(args);
    return next_slots;
  }
  sample::cuda::FollowArgs args;
  args.rows = rows;
  args.tokens = device_tokens_ + position * rows;
  args.guesses = reinterpret_cast<const int32_t*>(base + guesses.guesses) + position * rows;
  args.drafts = reinterpret_cast<const int32_t*>(base + guesses.drafts);
  args.position = position;
  args.row_slots = row_slots;
  args.next_slots = next_slots;
  args.simulated = simulated_acceptance_;
  sampler_->follow(args);
  return next_slots;
}

}  // namespace fathom::engine::cuda

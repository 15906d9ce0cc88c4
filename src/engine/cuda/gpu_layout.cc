// What a plan means for the device: the slots that it opens, and its rows as arrays of tokens.
#include "engine/cuda/gpu_engine.h"

namespace fathom::engine::cuda {

Result<void> GpuEngine::open_slots(BatchPlan& plan) {
  for (auto& open : plan.open) {
    Slot& slot = slots_.at(static_cast<size_t>(open.slot));
    slot.logprobs = open.init.logprobs;
    slot.block_table = std::move(open.pages);
    slot.constrained = open.init.mask != nullptr;
    slot.masks = finds_masks() ? masks_.open(open.init) : nullptr;
    slot.chosen = static_cast<int64_t>(open.init.output.size());
    slot.pass = 0;
    slot.behind = 0;
    slot.recent.clear();
    if (lookup_) {
      const std::lock_guard lock(lookup_mutex_);
      lookup_->open(open.slot, open.init);
    }
    FATHOM_TRY(sampler_->open(open.slot, open.init));
    for (size_t i = 0; i < slot.block_table.size(); ++i) {
      input_.updates.push_back({open.slot, static_cast<int32_t>(i), slot.block_table[i]});
    }
    if (!open.init.output.empty()) input_.updates.push_back({open.slot, -1, open.init.output.back()});
  }
  sampler_->flush();
  return {};
}

void GpuEngine::lay_out(BatchPlan& plan) {
  StepInput& in = input_;
  in.first.resize(plan.rows.size());
  size_t verifying = 0;
  for (auto& row : plan.rows) {
    auto& table = slots_.at(static_cast<size_t>(row.slot)).block_table;
    for (const int32_t page : row.new_pages) {
      in.updates.push_back({row.slot, static_cast<int32_t>(table.size()), page});
      table.push_back(page);
    }
  }
  for (const RowMode mode : {RowMode::kExtend, RowMode::kDecode}) {
    for (size_t r = 0; r < plan.rows.size(); ++r) {
      const BatchRow& row = plan.rows[r];
      if (row.mode != mode) continue;
      const Slot& slot = slots_[static_cast<size_t>(row.slot)];
      const auto first = static_cast<int32_t>(in.ids.size());
      in.first[r] = first;
      FATHOM_CHECK(
          static_cast<int64_t>(slot.block_table.size()) * limits_.page_size >= row.start + row.num_tokens(),
          "slot {}: {} pages of {} tokens for {} + {} tokens", row.slot, slot.block_table.size(),
          limits_.page_size, row.start, row.num_tokens());
      const auto add = [&](int32_t id, int32_t position) {
        in.ids.push_back(id);
        in.positions.push_back(position);
        in.slots.push_back(row.slot);
        in.places.push_back(position < 0 ? 0 : place_of(slot, position));
      };
      for (size_t i = 0; i < row.tokens.size(); ++i) {
        const int32_t token = row.tokens[i];
        FATHOM_CHECK(token >= 0 && token < limits_.vocab_size, "slot {}: token {} at position {}", row.slot,
                     token, row.start + static_cast<int32_t>(i));
        add(token, row.start + static_cast<int32_t>(i));
      }
      if (row.tokens.empty()) {
        GuessInput::Row& guess = guesses_.rows[verifying++];
        guess.sampling = static_cast<int64_t>(in.sampling.size());
        guess.first = first;
        add(-1, row.start);
        for (int32_t i = 1; i < width_; ++i) {
          // Behind the guesses: padding. A tree's tokens and their positions come to be on the GPU.
          const bool there = i <= guess.drafts;
          add(trees() ? 0 : guess_id(guess.sampling, i - 1), there && !trees() ? row.start + i : -1);
          if (there) in.places.back() = place_of(slot, row.start + i);
        }
      }
      const auto count = static_cast<int32_t>(in.ids.size()) - first;
      if (mode == RowMode::kExtend) in.extend_rows.push_back({first, count, row.start, row.slot, 0, 0, 0, 0});
      if (row.sample) {
        in.sampling.push_back(r);
        in.last_places.push_back(row.tokens.empty() ? first : first + count - 1);
        in.row_slots.push_back(row.slot);
      }
    }
    if (mode == RowMode::kExtend) in.extend_tokens = static_cast<int64_t>(in.ids.size());
  }
}

}  // namespace fathom::engine::cuda

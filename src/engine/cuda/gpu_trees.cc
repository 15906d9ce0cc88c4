// The engine's guesses as trees: what it brings for them, and the draft layer's passes. engine/draft_layer.cc
// is the specification.
#include <algorithm>
#include <limits>

#include "engine/cuda/gpu_engine.h"

namespace fathom::engine::cuda {

void GpuEngine::lay_out_trees(int64_t rows, int64_t tokens) {
  GuessInput& in = guesses_;
  // By row: the logits after its last token, then those after its guesses, which the GPU adds.
  for (size_t s = 0; s < input_.last_places.size(); ++s) {
    input_.logit_rows[s * static_cast<size_t>(width_)] = input_.last_places[s];
  }
  in.slots.assign(static_cast<size_t>(rows), 0);
  in.starts.assign(static_cast<size_t>(rows), 0);
  in.firsts.assign(static_cast<size_t>(rows), -1);
  in.tail_starts.assign(static_cast<size_t>(tokens), std::numeric_limits<int32_t>::max());
  for (const GuessInput::Row& row : in.rows) {
    const auto s = static_cast<size_t>(row.sampling);
    in.slots[s] = row.slot;
    in.starts[s] = row.start;
    in.firsts[s] = row.first;
    if (row.drafts == 0) continue;
    std::fill_n(in.tail_starts.begin() + row.first, width_, row.start);
  }
}

TreeRows GpuEngine::tree_rows(const GuessLayout& layout) const {
  const auto* base = static_cast<const std::byte*>(device_input_.data());
  const auto ints = [base](int64_t offset) { return reinterpret_cast<const int32_t*>(base + offset); };
  return {layout.rows, ints(layout.slots), ints(layout.starts), ints(layout.firsts), ints(layout.drafts)};
}

ops::cuda::Matrix GpuEngine::tree_tails(int64_t tokens) const {
  return numbers(trees_.tails, tokens * trees_.tail_stride() * 2);
}

ops::cuda::Matrix GpuEngine::tree_choices(int64_t rows) const {
  return numbers(trees_.logit_rows, shape_.choices() * rows);
}

void GpuEngine::draft_trees(const StepLayout& step, const GuessLayout& layout, bool draws,
                            int64_t most_rows) {
  auto* base = static_cast<std::byte*>(device_input_.data());
  const auto ints = [base](int64_t offset) { return reinterpret_cast<int32_t*>(base + offset); };
  const TreeRows tree = tree_rows(layout);
  for (int32_t pass = 0; pass < shape_.passes; ++pass) {
    const TreeMemory::Beams& beams = trees_.beams[pass % 2];
    const int64_t rows = pass == 0 ? layout.rows : layout.rows * shape_.branches;
    model::cuda::GpuBatch batch;
    const int32_t* states = beams.states;
    if (pass == 0) {
      batch = batch_of(layout.chain, base, 0, rows, tables_);
      resolve_draft_tokens(layout, batch);
      batch.logit_rows = ints(layout.chain_rows);
      states = ints(layout.chain.states);
    } else {
      batch.view = {rows, beams.positions, beams.places, beams.slots, tables_.block_tables, tables_.stride};
      batch.token_ids = beams.ids;
      batch.branches = {beams.tail_starts, beams.tails, trees_.tail_stride()};
      batch.logit_rows = beams.logit_rows;
      batch.most_places = tables_.most_places;
    }
    batch.logit_count = rows;
    batch.cache = &cache_;
    batch.group_tokens = pass == 0 ? most_rows : most_rows * shape_.branches;
    model_->draft(*stream_, batch, states);
    sample::cuda::SampleArgs choice;
    choice.logits = model_->last_logits();
    choice.adjusted = adjusted_;
    choice.rows = rows;
    choice.row_slots = pass == 0 ? ints(layout.draft_slots) : beams.draft_slots;
    choice.last_tokens = tables_.last_tokens;
    choice.tokens = trees_.chosen;
    choice.draws = draws;
    choice.ahead = pass;
    sampler_->sample(choice);
    sample::cuda::LogprobArgs likeliest;
    likeliest.logits = model_->last_logits();
    likeliest.rows = rows;
    likeliest.tokens = trees_.chosen;
    likeliest.top = shape_.branches;
    likeliest.token_logprobs = trees_.chosen_logprobs;
    likeliest.top_tokens = trees_.top_tokens;
    likeliest.top_logprobs = trees_.top_logprobs;
    sampler_->logprobs(likeliest);
    grow_trees(*stream_, trees_, tree, pass, model_->draft_state(0), tables_, limits_.page_size);
  }
  pick_trees(*stream_, trees_, tree, {ints(step.ids), ints(step.positions), ints(step.rows)}, tables_,
             limits_.page_size);
}

// Of a row with masks, once they have come to the host.
sample::GuessTree GpuEngine::drafted_guesses(const Frame& frame, const GuessInput::Row& row) const {
  const auto* tokens = static_cast<const int32_t*>(frame.guesses.data());
  sample::GuessTree guesses;
  if (trees()) {
    const int32_t* parents = tokens + frame.stride * width_;
    for (int64_t at = row.sampling * width_ + 1; at < (row.sampling + 1) * width_; ++at) {
      if (parents[at] >= 0) guesses.add(tokens[at], parents[at] - 1);
    }
    return guesses;
  }
  for (int32_t i = 0; i < row.drafts; ++i) {
    guesses.extend(lookup_ ? row.guesses[static_cast<size_t>(i)] : tokens[i * frame.stride + row.sampling]);
  }
  return guesses;
}

}  // namespace fathom::engine::cuda

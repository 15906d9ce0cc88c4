// The engine's speculation: what it brings for the draft layer, and the layer's passes. engine/draft_layer.cc
// is the specification.
#include <algorithm>

#include "base/math.h"
#include "engine/cuda/gpu_engine.h"

namespace fathom::engine::cuda {

int64_t GpuEngine::place_of(const Slot& slot, int32_t position) const {
  const int64_t page = slot.block_table[static_cast<size_t>(position / limits_.page_size)];
  return page * limits_.page_size + position % limits_.page_size;
}

PassBoard::Want GpuEngine::plan_guesses(const BatchPlan& plan) {
  PassBoard::Want want;
  bool extends = false;
  const std::lock_guard lock(lookup_mutex_);
  for (const BatchRow& row : plan.rows) {
    if (row.sample) ++want.sampling;
    extends = extends || row.mode == RowMode::kExtend;
    if (!row.tokens.empty()) {
      want.named += row.num_tokens();
      continue;
    }
    ++want.going_on;
    FATHOM_CHECK(row.sample, "slot {}: a row without tokens chooses one", row.slot);
    const Slot& slot = slots_[static_cast<size_t>(row.slot)];
    GuessInput::Row& guess = guesses_.rows.emplace_back();
    guess.slot = row.slot;
    guess.start = row.start;
    if (lookup_) {
      DraftRow draft;
      draft.slot = row.slot;
      draft.drafts = row.drafts;
      lookup_->draft(launch_, {&draft, 1});
      guess.guesses = std::move(draft.guesses.tokens);
      guess.drafts = static_cast<int32_t>(guess.guesses.size());
    } else if (drafts_layer()) {
      guess.drafts = slot.behind > 0 ? row.drafts : 0;
    }
    if (guess.drafts > 0) want.width = widest_;
  }
  // Every token is of a row that a graph knows: one token, or its last one and guesses.
  const int64_t rows = widest_ > 1 ? want.going_on : want.going_on + want.named;
  if (!extends && !eager_ && rows == want.sampling && want.going_on + want.named == rows)
    want.graph_rows = graph_size(rows);
  return want;
}

void GpuEngine::lay_out_catch_up() {
  // The graph takes one place of each row.
  for (const GuessInput::Row& row : guesses_.rows) {
    const int32_t more = std::max(slots_[static_cast<size_t>(row.slot)].behind - 1, 0);
    int64_t at = catch_up_.tokens.size();
    catch_up_.tokens.grow(at + more);
    add_behind(row.slot, row.start, 0, more, &catch_up_.tokens, &at);
  }
}

// Of the positions before `start` that the layer has not seen, those from the `begin`th to before the
// `end`th; the slot's last token stands at `start`.
void GpuEngine::add_behind(int32_t index, int32_t start, int32_t begin, int32_t end, DraftTokens* tokens,
                           int64_t* at) const {
  const Slot& slot = slots_[static_cast<size_t>(index)];
  for (int32_t i = begin; i < end; ++i) {
    const int32_t position = start - slot.behind + i;
    const int32_t token = i + 1 == slot.behind ? -1 : slot.recent[static_cast<size_t>(i)];
    tokens->set((*at)++, token, position, index, place_of(slot, position),
                model_->kept_state(int64_t{index} * kept_ + i));
  }
}

GuessLayout::Sizes GpuEngine::guess_sizes(int64_t rows, int64_t tokens) const {
  return {.rows = rows,
          .drafts = drafts_layer() ? passes() : width_ - 1,
          .draft_layer = drafts_layer(),
          .tree_tokens = trees() && width_ > 1 ? tokens : 0};
}

void GpuEngine::lay_out_rows(int64_t rows, int64_t tokens) {
  guesses_.drafts.assign(static_cast<size_t>(rows), 0);
  for (const GuessInput::Row& row : guesses_.rows) {
    guesses_.drafts[static_cast<size_t>(row.sampling)] = row.drafts;
  }
  input_.logit_rows.assign(static_cast<size_t>(rows * width_), -1);
  if (trees() && width_ > 1) {
    lay_out_trees(rows, tokens);
  } else {
    // By position: the logits of every row's first choice come first.
    std::copy(input_.last_places.begin(), input_.last_places.end(), input_.logit_rows.begin());
    guesses_.guesses.assign(static_cast<size_t>(rows * (width_ - 1)), -1);
    for (const GuessInput::Row& row : guesses_.rows) {
      for (int32_t i = 0; i < row.drafts; ++i) {
        const auto at = static_cast<size_t>(i * rows + row.sampling);
        input_.logit_rows[at + static_cast<size_t>(rows)] = row.first + 1 + i;
        if (lookup_) guesses_.guesses[at] = row.guesses[static_cast<size_t>(i)];
      }
    }
  }
  if (drafts_layer()) lay_out_guesses(rows);
}

void GpuEngine::lay_out_guesses(int64_t rows) {
  GuessInput& in = guesses_;
  const int32_t most = passes();
  const bool chains = width_ > 1 && !trees();
  const int32_t laid_out = chains ? most : std::min(most, 1);  // passes
  in.behind.resize(rows * most);
  in.chain.resize(rows * std::max(laid_out, 1));
  in.chain_rows.assign(static_cast<size_t>(rows * laid_out), -1);
  in.draft_slots.assign(static_cast<size_t>(rows * laid_out), -1);
  in.keep_from.assign(static_cast<size_t>(rows * choices()), -1);
  in.keep_to.assign(static_cast<size_t>(rows * choices()), -1);
  for (const GuessInput::Row& row : in.rows) {
    const Slot& slot = slots_[static_cast<size_t>(row.slot)];
    const int64_t s = row.sampling;
    for (int32_t i = 0; i <= (chains ? row.drafts : 0); ++i) {
      const auto at = static_cast<size_t>(s * choices() + i);
      in.keep_from[at] = row.first + i;
      in.keep_to[at] = row.slot * kept_ + i;
    }
    if (slot.behind == 0) continue;
    int64_t next = s * most;
    if (most > 0) add_behind(row.slot, row.start, 0, slot.behind - 1, &in.behind, &next);
    next = s;
    add_behind(row.slot, row.start, slot.behind - 1, slot.behind, &in.chain, &next);
    for (int32_t pass = 0; pass < std::min(row.drafts, laid_out); ++pass) {
      const int64_t at = pass * rows + s;
      in.draft_slots[static_cast<size_t>(at)] = row.slot;
      in.chain_rows[static_cast<size_t>(at)] = static_cast<int32_t>(s);
      if (pass == 0) continue;
      // After a guess: its token comes of the pass before, as does the hidden state.
      const int32_t position = row.start + pass - 1;
      in.chain.set(at, 0, position, row.slot, place_of(slot, position), model_->draft_state(s));
    }
  }
}

void GpuEngine::lay_out_named(const BatchPlan& plan) {
  named_.clear();
  for (size_t r = 0; r < plan.rows.size(); ++r) {
    const BatchRow& row = plan.rows[r];
    if (row.tokens.empty()) continue;
    Slot& slot = slots_[static_cast<size_t>(row.slot)];
    const int64_t kept = int64_t{row.slot} * kept_;
    int64_t at = named_.tokens.size();
    const auto count = static_cast<int32_t>(row.tokens.size());
    named_.tokens.grow(at + slot.behind + count - 1);
    for (int32_t i = 0; i < slot.behind; ++i) {
      const bool last = i + 1 == slot.behind;
      const int32_t position = row.start - slot.behind + i;
      named_.tokens.set(at++, last ? row.tokens.front() : slot.recent[static_cast<size_t>(i)], position,
                        row.slot, place_of(slot, position), model_->kept_state(kept + i));
    }
    for (int32_t i = 0; i + 1 < count; ++i) {
      named_.tokens.set(at++, row.tokens[static_cast<size_t>(i) + 1], row.start + i, row.slot,
                        place_of(slot, row.start + i), input_.first[r] + i);
    }
    named_.keep_from.push_back(input_.first[r] + count - 1);
    named_.keep_to.push_back(static_cast<int32_t>(kept));
    slot.behind = 1;
    slot.recent.clear();
  }
}

// A group's part in the passes of others, in which it guesses nothing.
void GpuEngine::draft_nothing(int64_t most_rows) {
  if (!chooses() || most_rows == 0) return;
  model::cuda::GpuBatch batch;
  batch.cache = &cache_;
  for (int32_t pass = 0; pass < passes(); ++pass) {
    batch.group_tokens = pass == 0 || !trees() ? most_rows : most_rows * shape_.branches;
    model_->draft(*stream_, batch, nullptr);
  }
}

// Of the first of a chain: the slots' last tokens.
void GpuEngine::resolve_draft_tokens(const GuessLayout& layout, const model::cuda::GpuBatch& batch) {
  auto* ids = reinterpret_cast<int32_t*>(static_cast<std::byte*>(device_input_.data()) + layout.chain.ids);
  resolve_tokens(*stream_, ids, batch.view.slots, tables_.last_tokens, nullptr, 0, layout.rows);
}

void GpuEngine::draft(const StepLayout& step, const GuessLayout& layout, bool draws, int64_t most_rows) {
  auto* base = static_cast<std::byte*>(device_input_.data());
  const auto ints = [base](int64_t offset) { return reinterpret_cast<int32_t*>(base + offset); };
  if (layout.rows == 0) {
    draft_nothing(most_rows);
  } else if (chooses()) {
    // Without guesses one entry of each row; with them, those before the passes'.
    const DraftTokensAt& entries = width_ > 1 ? layout.behind : layout.chain;
    auto before = batch_of(entries, base, 0, layout.rows * std::max(passes(), 1), tables_);
    before.cache = &cache_;
    if (width_ == 1) resolve_draft_tokens(layout, before);
    model_->draft_entries(*stream_, before, ints(entries.states));
    if (width_ > 1 && trees()) draft_trees(step, layout, draws, most_rows);
    if (width_ > 1 && !trees()) draft_chains(layout, draws, most_rows);
  }
  if (width_ > 1) hand_back_guesses(step, layout);
}

void GpuEngine::draft_chains(const GuessLayout& layout, bool draws, int64_t most_rows) {
  auto* base = static_cast<std::byte*>(device_input_.data());
  const auto ints = [base](int64_t offset) { return reinterpret_cast<int32_t*>(base + offset); };
  const int64_t rows = layout.rows;
  int32_t* guesses = ints(layout.guesses);
  for (int32_t pass = 0; pass < width_ - 1; ++pass) {
    auto batch = batch_of(layout.chain, base, pass * rows, rows, tables_);
    if (pass == 0) {
      resolve_draft_tokens(layout, batch);
    } else {
      batch.token_ids = guesses + (pass - 1) * rows;
    }
    batch.logit_rows = ints(layout.chain_rows) + pass * rows;
    batch.logit_count = rows;
    batch.cache = &cache_;
    batch.group_tokens = most_rows;
    model_->draft(*stream_, batch, ints(layout.chain.states) + pass * rows);
    sample::cuda::SampleArgs args;
    args.logits = model_->last_logits();
    args.adjusted = adjusted_;
    args.rows = rows;
    args.row_slots = ints(layout.draft_slots) + pass * rows;
    args.last_tokens = tables_.last_tokens;
    args.tokens = guesses + pass * rows;
    args.draws = draws;
    args.ahead = pass;
    sampler_->sample(args);
  }
}

void GpuEngine::hand_back_guesses(const StepLayout& step, const GuessLayout& layout) {
  if (layout.rows == 0) return;
  auto* base = static_cast<std::byte*>(device_input_.data());
  if (!trees()) {
    model_->hand_back(*stream_, numbers(base + layout.guesses, (width_ - 1) * layout.rows));
    return;
  }
  model_->hand_back(*stream_, numbers(base + step.ids, step.tokens));
  model_->hand_back(*stream_, numbers(base + step.positions, step.tokens));
  model_->hand_back(*stream_, tree_tails(step.tokens));
}

void GpuEngine::run_follow(FollowInput& input) {
  auto* base = static_cast<std::byte*>(device_input_.data());
  const auto ints = [base](int64_t offset) { return reinterpret_cast<int32_t*>(base + offset); };
  // A step's named tokens and what stands before them can be more than a pass takes.
  const int64_t most = model_->max_tokens();
  for (int64_t begin = 0; begin < input.tokens.size(); begin += most) {
    const int64_t count = std::min(most, input.tokens.size() - begin);
    auto batch = batch_of(input.at, base, begin, count, tables_);
    batch.cache = &cache_;
    resolve_tokens(*stream_, ints(input.at.ids) + begin, batch.view.slots, tables_.last_tokens, nullptr, 0,
                   count);
    model_->draft_entries(*stream_, batch, ints(input.at.states) + begin);
  }
  model_->keep(*stream_, ints(input.keep_from_at), ints(input.keep_to_at),
               static_cast<int64_t>(input.keep_from.size()));
}

void GpuEngine::keep_states(const GuessLayout& layout) {
  const auto* base = static_cast<const std::byte*>(device_input_.data());
  model_->keep(*stream_, reinterpret_cast<const int32_t*>(base + layout.keep_from),
               reinterpret_cast<const int32_t*>(base + layout.keep_to), layout.rows * choices());
}

void GpuEngine::note_outputs(const Frame& frame) {
  for (size_t i = 0; i < frame.choices.size(); ++i) {
    const RowChoice& choice = frame.choices[i];
    if (!choice.verifies && lookup_ == nullptr) continue;
    const int32_t index = frame.result.rows[choice.row].slot;
    const std::vector<int32_t> tokens = tokens_of(frame, i);
    if (choice.verifies) {
      // No other step of the slot is in flight.
      Slot& slot = slots_[static_cast<size_t>(index)];
      slot.chosen += static_cast<int64_t>(tokens.size()) - 1;  // one was counted when the step was queued
      slot.behind = static_cast<int32_t>(tokens.size());
      slot.recent.assign(tokens.begin(), tokens.end() - 1);
    }
    if (lookup_ == nullptr) continue;
    std::vector<TokenOutput> outputs(tokens.size());
    for (size_t o = 0; o < tokens.size(); ++o) outputs[o].token = tokens[o];
    ComputedRow computed;
    computed.slot = index;
    computed.outputs = outputs;
    const std::lock_guard lock(lookup_mutex_);
    lookup_->follow(launch_, {&computed, 1}, {});
  }
}

}  // namespace fathom::engine::cuda

// The engine's speculation: what it brings for the draft layer, and the layer's passes. engine/draft_layer.cc
// is the specification.
#include <algorithm>
#include <cstring>
#include <tuple>

#include "base/math.h"
#include "engine/cuda/gpu_engine.h"

namespace fathom::engine::cuda {

int64_t GpuEngine::place_of(const Slot& slot, int32_t position) const {
  const int64_t page = slot.block_table[static_cast<size_t>(position / limits_.page_size)];
  return page * limits_.page_size + position % limits_.page_size;
}

void GpuEngine::plan_guesses(const BatchPlan& plan) {
  width_ = 1;
  bool far_behind = false;
  for (const BatchRow& row : plan.rows) {
    if (!row.tokens.empty()) continue;
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
      far_behind = far_behind || slot.behind == widest_;
    }
    if (guess.drafts > 0) width_ = widest_;
  }
  catch_up_.clear();
  if (far_behind && width_ == 1) lay_out_catch_up();
}

void GpuEngine::lay_out_catch_up() {
  int64_t count = 0;
  for (const GuessInput::Row& row : guesses_.rows) count += slots_[static_cast<size_t>(row.slot)].behind;
  catch_up_.tokens.resize(count);
  int64_t at = 0;
  for (const GuessInput::Row& row : guesses_.rows) add_behind(row.slot, row.start, &catch_up_.tokens, &at);
}

// The positions before `start` that the layer has not seen; the slot's last token stands at `start`.
void GpuEngine::add_behind(int32_t index, int32_t start, DraftTokens* tokens, int64_t* at) const {
  const Slot& slot = slots_[static_cast<size_t>(index)];
  for (int32_t i = 0; i < slot.behind; ++i) {
    const int32_t position = start - slot.behind + i;
    const int32_t token = i + 1 == slot.behind ? -1 : slot.recent[static_cast<size_t>(i)];
    tokens->set((*at)++, token, position, index, place_of(slot, position),
                model_->kept_state(int64_t{index} * widest_ + i));
  }
}

void GpuEngine::lay_out_rows(int64_t rows) {
  // By position: the logits of every row's first choice come first.
  input_.logit_rows.assign(static_cast<size_t>(rows * width_), -1);
  std::copy(input_.last_places.begin(), input_.last_places.end(), input_.logit_rows.begin());
  guesses_.drafts.assign(static_cast<size_t>(rows), 0);
  guesses_.guesses.assign(static_cast<size_t>(rows * (width_ - 1)), -1);
  for (const GuessInput::Row& row : guesses_.rows) {
    guesses_.drafts[static_cast<size_t>(row.sampling)] = row.drafts;
    for (int32_t i = 0; i < row.drafts; ++i) {
      const auto at = static_cast<size_t>(i * rows + row.sampling);
      input_.logit_rows[at + static_cast<size_t>(rows)] = row.first + 1 + i;
      if (lookup_) guesses_.guesses[at] = row.guesses[static_cast<size_t>(i)];
    }
  }
  if (drafts_layer()) lay_out_guesses(rows);
}

void GpuEngine::lay_out_guesses(int64_t rows) {
  GuessInput& in = guesses_;
  const int32_t drafts = width_ - 1;
  in.keep_from.assign(static_cast<size_t>(rows * width_), -1);
  in.keep_to.assign(static_cast<size_t>(rows * width_), -1);
  const bool caught_up = width_ > 1 || catch_up_.tokens.size() > 0;
  for (const GuessInput::Row& row : in.rows) {
    const int32_t behind = caught_up ? 0 : slots_[static_cast<size_t>(row.slot)].behind;
    for (int32_t i = 0; i <= row.drafts; ++i) {
      const auto at = static_cast<size_t>(row.sampling * width_ + i);
      in.keep_from[at] = row.first + i;
      in.keep_to[at] = row.slot * widest_ + behind + i;
    }
  }
  if (drafts == 0) return;
  in.behind.resize(rows * width_);
  in.behind_last.assign(static_cast<size_t>(rows), -1);
  in.chain.resize(rows * (drafts - 1));
  in.chain_rows.assign(static_cast<size_t>(rows * (drafts - 1)), -1);
  in.draft_slots.assign(static_cast<size_t>(rows * drafts), -1);
  for (const GuessInput::Row& row : in.rows) {
    const Slot& slot = slots_[static_cast<size_t>(row.slot)];
    const int64_t s = row.sampling;
    int64_t next = s * width_;
    add_behind(row.slot, row.start, &in.behind, &next);
    const int64_t last_behind = next - 1;
    for (int32_t pass = 0; pass < row.drafts; ++pass) {
      in.draft_slots[static_cast<size_t>(pass * rows + s)] = row.slot;
      if (pass == 0) {
        in.behind_last[static_cast<size_t>(s)] = static_cast<int32_t>(last_behind);
        continue;
      }
      // After a guess: its token comes of the pass before, as does the hidden state.
      const int32_t position = row.start + pass - 1;
      const int64_t at = (pass - 1) * rows + s;
      in.chain.set(at, 0, position, row.slot, place_of(slot, position),
                   model_->draft_state(pass == 1 ? last_behind : s));
      in.chain_rows[static_cast<size_t>(at)] = static_cast<int32_t>(s);
    }
  }
}

void GpuEngine::lay_out_named(const BatchPlan& plan) {
  named_.clear();
  std::vector<std::tuple<int32_t, int32_t, int32_t, int64_t, int32_t>> tokens;
  for (const RowMode mode : {RowMode::kExtend, RowMode::kDecode}) {
    for (size_t r = 0; r < plan.rows.size(); ++r) {
      const BatchRow& row = plan.rows[r];
      if (row.mode != mode || row.tokens.empty()) continue;
      Slot& slot = slots_[static_cast<size_t>(row.slot)];
      const int64_t kept = int64_t{row.slot} * widest_;
      const auto begin = static_cast<int32_t>(tokens.size());
      const auto add = [&](int32_t token, int32_t position, int32_t state) {
        tokens.emplace_back(token, position, row.slot, place_of(slot, position), state);
      };
      for (int32_t i = 0; i < slot.behind; ++i) {
        const bool last = i + 1 == slot.behind;
        add(last ? row.tokens.front() : slot.recent[static_cast<size_t>(i)], row.start - slot.behind + i,
            model_->kept_state(kept + i));
      }
      const auto count = static_cast<int32_t>(row.tokens.size());
      for (int32_t i = 0; i + 1 < count; ++i) {
        add(row.tokens[static_cast<size_t>(i) + 1], row.start + i, input_.first[r] + i);
      }
      const auto added = static_cast<int32_t>(tokens.size()) - begin;
      if (mode == RowMode::kExtend && added > 0) {
        named_.extend_rows.push_back(
            {begin, added, std::get<1>(tokens[static_cast<size_t>(begin)]), row.slot, 0, 0, 0, 0});
      }
      named_.keep_from.push_back(input_.first[r] + count - 1);
      named_.keep_to.push_back(static_cast<int32_t>(kept));
      slot.behind = 1;
      slot.recent.clear();
    }
    if (mode == RowMode::kExtend) named_.extend_tokens = static_cast<int64_t>(tokens.size());
  }
  named_.tokens.resize(static_cast<int64_t>(tokens.size()));
  for (size_t i = 0; i < tokens.size(); ++i) {
    const auto& [token, position, slot, place, state] = tokens[i];
    named_.tokens.set(static_cast<int64_t>(i), token, position, slot, place, state);
  }
}

void GpuEngine::draft(const GuessLayout& layout, bool draws) {
  auto* base = static_cast<std::byte*>(device_input_.data());
  const auto ints = [base](int64_t offset) { return reinterpret_cast<int32_t*>(base + offset); };
  const int64_t rows = layout.rows;
  int32_t* guesses = ints(layout.guesses);
  for (int32_t pass = 0; pass < width_ - 1; ++pass) {
    const int64_t begin = (pass - 1) * rows;  // of a later pass
    auto batch = pass == 0 ? batch_of(layout.behind, base, 0, rows * width_, tables_)
                           : batch_of(layout.chain, base, begin, rows, tables_);
    const int32_t* states = pass == 0 ? ints(layout.behind.states) : ints(layout.chain.states) + begin;
    if (pass == 0) {
      resolve_tokens(*stream_, ints(layout.behind.ids), batch.view.slots, tables_.last_tokens, guesses, rows,
                     rows * width_);
    } else {
      batch.token_ids = guesses + begin;
    }
    batch.logit_rows = pass == 0 ? ints(layout.behind_last) : ints(layout.chain_rows) + begin;
    batch.logit_count = rows;
    batch.cache = &cache_;
    model_->draft(*stream_, batch, states);
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

void GpuEngine::run_follow(FollowInput& input) {
  auto* base = static_cast<std::byte*>(device_input_.data());
  const auto ints = [base](int64_t offset) { return reinterpret_cast<int32_t*>(base + offset); };
  if (const int64_t count = input.tokens.size(); count > 0) {
    auto batch = batch_of(input.at, base, 0, count, tables_);
    batch.extend_tokens = input.extend_tokens;
    batch.passes = input.passes;
    batch.cache = &cache_;
    resolve_tokens(*stream_, ints(input.at.ids), batch.view.slots, tables_.last_tokens, nullptr, 0, count);
    model_->draft(*stream_, batch, ints(input.at.states));
  }
  model_->keep(*stream_, ints(input.keep_from_at), ints(input.keep_to_at),
               static_cast<int64_t>(input.keep_from.size()));
}

void GpuEngine::keep_states(const GuessLayout& layout) {
  const auto* base = static_cast<const std::byte*>(device_input_.data());
  model_->keep(*stream_, reinterpret_cast<const int32_t*>(base + layout.keep_from),
               reinterpret_cast<const int32_t*>(base + layout.keep_to), layout.rows * width_);
}

void GpuEngine::note_outputs(const Frame& frame) {
  if (widest_ == 1) return;
  for (size_t i = 0; i < frame.choices.size(); ++i) {
    const RowChoice& choice = frame.choices[i];
    const int32_t index = frame.result.rows[choice.row].slot;
    Slot& slot = slots_[static_cast<size_t>(index)];
    const std::vector<int32_t> tokens = tokens_of(frame, i);
    slot.chosen += static_cast<int64_t>(tokens.size()) - 1;  // one was counted when the step was queued
    if (choice.verifies && choice.caught_up) {
      slot.behind = static_cast<int32_t>(tokens.size());
      slot.recent.assign(tokens.begin(), tokens.end() - 1);
    } else if (choice.verifies) {
      // The row's own token is the one after the position before it.
      if (slot.behind > 0) slot.recent.push_back(slot.last_token);
      ++slot.behind;
    }
    slot.last_token = tokens.back();
    if (lookup_ == nullptr) continue;
    std::vector<TokenOutput> outputs(tokens.size());
    for (size_t o = 0; o < tokens.size(); ++o) outputs[o].token = tokens[o];
    ComputedRow computed;
    computed.slot = index;
    computed.outputs = outputs;
    lookup_->follow(launch_, {&computed, 1}, {});
  }
}

}  // namespace fathom::engine::cuda

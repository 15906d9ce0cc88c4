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

GuessInput::Row GpuEngine::guesses_of(const BatchRow& row, int32_t first) {
  const Slot& slot = slots_[static_cast<size_t>(row.slot)];
  GuessInput::Row guess;
  guess.sampling = static_cast<int64_t>(input_.sampling.size());
  guess.slot = row.slot;
  guess.start = row.start;
  guess.first = first;
  if (lookup_) {
    DraftRow draft;
    draft.slot = row.slot;
    draft.drafts = row.drafts;
    lookup_->draft(launch_, {&draft, 1});
    guess.guesses = std::move(draft.tokens);
    guess.drafts = static_cast<int32_t>(guess.guesses.size());
  } else if (drafts_layer()) {
    guess.behind = slot.recent;
    guess.num_behind = slot.behind;
    guess.drafts = slot.behind > 0 ? row.drafts : 0;
  }
  return guess;
}

void GpuEngine::lay_out_rows(int64_t rows) {
  // By position: the logits of every row's first choice come first.
  input_.logit_rows.assign(static_cast<size_t>(rows * verified_), -1);
  std::copy(input_.last_places.begin(), input_.last_places.end(), input_.logit_rows.begin());
  guesses_.drafts.assign(static_cast<size_t>(rows), 0);
  guesses_.guesses.assign(static_cast<size_t>(rows * limits_.max_drafts), -1);
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
  const int32_t drafts = limits_.max_drafts;
  in.behind.resize(rows * verified_);
  in.behind_last.assign(static_cast<size_t>(rows), -1);
  in.chain.resize(rows * (drafts - 1));
  in.chain_rows.assign(static_cast<size_t>(rows * (drafts - 1)), -1);
  in.draft_slots.assign(static_cast<size_t>(rows * drafts), -1);
  in.keep_from.assign(static_cast<size_t>(rows * verified_), -1);
  in.keep_to.assign(static_cast<size_t>(rows * verified_), -1);
  for (const GuessInput::Row& row : in.rows) {
    const Slot& slot = slots_[static_cast<size_t>(row.slot)];
    const int64_t s = row.sampling;
    const int64_t kept = int64_t{row.slot} * verified_;
    for (int32_t i = 0; i < row.num_behind; ++i) {
      const int32_t position = row.start - row.num_behind + i;
      const bool last = i + 1 == row.num_behind;
      in.behind.set(s * verified_ + i, last ? -1 : row.behind[static_cast<size_t>(i)], position, row.slot,
                    place_of(slot, position), model_->kept_state(kept + i));
    }
    for (int32_t pass = 0; pass < row.drafts; ++pass) {
      in.draft_slots[static_cast<size_t>(pass * rows + s)] = row.slot;
      const int64_t last_behind = s * verified_ + row.num_behind - 1;
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
    for (int32_t i = 0; i <= row.drafts; ++i) {
      in.keep_from[static_cast<size_t>(s * verified_ + i)] = row.first + i;
      in.keep_to[static_cast<size_t>(s * verified_ + i)] = static_cast<int32_t>(kept + i);
    }
  }
}

void GpuEngine::lay_out_named(const BatchPlan& plan) {
  follow_.clear();
  std::vector<std::tuple<int32_t, int32_t, int32_t, int64_t, int32_t>> tokens;
  for (const RowMode mode : {RowMode::kExtend, RowMode::kDecode}) {
    for (size_t r = 0; r < plan.rows.size(); ++r) {
      const BatchRow& row = plan.rows[r];
      if (row.mode != mode || row.tokens.empty()) continue;
      Slot& slot = slots_[static_cast<size_t>(row.slot)];
      const int64_t kept = int64_t{row.slot} * verified_;
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
        follow_.extend_rows.push_back(
            {begin, added, std::get<1>(tokens[static_cast<size_t>(begin)]), row.slot, 0, 0, 0, 0});
      }
      follow_.keep_from.push_back(input_.first[r] + count - 1);
      follow_.keep_to.push_back(static_cast<int32_t>(kept));
      slot.behind = 1;
      slot.recent.clear();
    }
    if (mode == RowMode::kExtend) follow_.extend_tokens = static_cast<int64_t>(tokens.size());
  }
  follow_.tokens.resize(static_cast<int64_t>(tokens.size()));
  for (size_t i = 0; i < tokens.size(); ++i) {
    const auto& [token, position, slot, place, state] = tokens[i];
    follow_.tokens.set(static_cast<int64_t>(i), token, position, slot, place, state);
  }
}

int64_t GpuEngine::write_follow(std::byte* to, int64_t at) {
  const auto put = [&](const auto& values) {
    const int64_t begin = round_up<int64_t>(at, 16);
    const size_t bytes = values.size() * sizeof(values[0]);
    if (bytes > 0) std::memcpy(to + begin, values.data(), bytes);
    at = begin + static_cast<int64_t>(bytes);
    return begin;
  };
  follow_at_.ids = put(follow_.tokens.ids);
  follow_at_.positions = put(follow_.tokens.positions);
  follow_at_.slots = put(follow_.tokens.slots);
  follow_at_.states = put(follow_.tokens.states);
  follow_at_.places = put(follow_.tokens.places);
  follow_keep_from_ = put(follow_.keep_from);
  follow_keep_to_ = put(follow_.keep_to);
  follow_passes_ = model::cuda::plan_passes(follow_.extend_rows);
  for (auto& pass : follow_passes_) {
    const auto* device = static_cast<const std::byte*>(device_input_.data());
    pass.device_rows = reinterpret_cast<const ops::cuda::ExtendRow*>(device + put(pass.rows));
  }
  return at;
}

void GpuEngine::draft(const GuessLayout& layout, bool draws) {
  auto* base = static_cast<std::byte*>(device_input_.data());
  const auto ints = [base](int64_t offset) { return reinterpret_cast<int32_t*>(base + offset); };
  const int64_t rows = layout.rows;
  int32_t* guesses = ints(layout.guesses);
  for (int32_t pass = 0; pass < limits_.max_drafts; ++pass) {
    const int64_t begin = (pass - 1) * rows;  // of a later pass
    auto batch = pass == 0 ? batch_of(layout.behind, base, 0, rows * verified_, tables_)
                           : batch_of(layout.chain, base, begin, rows, tables_);
    const int32_t* states = pass == 0 ? ints(layout.behind.states) : ints(layout.chain.states) + begin;
    if (pass == 0) {
      resolve_tokens(*stream_, ints(layout.behind.ids), batch.view.slots, tables_.last_tokens, guesses, rows,
                     rows * verified_);
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

void GpuEngine::follow_named() {
  auto* base = static_cast<std::byte*>(device_input_.data());
  const auto ints = [base](int64_t offset) { return reinterpret_cast<int32_t*>(base + offset); };
  if (follow_.tokens.size() > 0) {
    auto batch = batch_of(follow_at_, base, 0, follow_.tokens.size(), tables_);
    batch.extend_tokens = follow_.extend_tokens;
    batch.passes = follow_passes_;
    batch.cache = &cache_;
    model_->draft(*stream_, batch, ints(follow_at_.states));
  }
  model_->keep(*stream_, ints(follow_keep_from_), ints(follow_keep_to_),
               static_cast<int64_t>(follow_.keep_from.size()));
}

void GpuEngine::keep_states(const GuessLayout& layout) {
  const auto* base = static_cast<const std::byte*>(device_input_.data());
  model_->keep(*stream_, reinterpret_cast<const int32_t*>(base + layout.keep_from),
               reinterpret_cast<const int32_t*>(base + layout.keep_to), layout.rows * verified_);
}

void GpuEngine::note_outputs(const Frame& frame) {
  if (verified_ == 1) return;
  for (size_t i = 0; i < frame.choices.size(); ++i) {
    const RowChoice& choice = frame.choices[i];
    const int32_t index = frame.result.rows[choice.row].slot;
    Slot& slot = slots_[static_cast<size_t>(index)];
    std::vector<TokenOutput> outputs;
    for (int64_t position = 0; position <= choice.drafts; ++position) {
      outputs.push_back(frame.output.token(position * frame.stride + static_cast<int64_t>(i)));
      if (outputs.back().token >= 0) continue;
      outputs.pop_back();
      break;
    }
    if (choice.verifies) {
      slot.behind = static_cast<int32_t>(outputs.size());
      slot.recent.clear();
      for (size_t o = 0; o + 1 < outputs.size(); ++o) slot.recent.push_back(outputs[o].token);
    }
    if (lookup_ == nullptr) continue;
    ComputedRow computed;
    computed.slot = index;
    computed.outputs = outputs;
    lookup_->follow(launch_, {&computed, 1}, {});
  }
}

}  // namespace fathom::engine::cuda

// Drafts with the model's MTP layer, used again and again: the hidden state that it gives takes the place of
// the model's for the next guess.
//
// The layer is behind the model: its entry of a position needs the next token. So a slot keeps the hidden
// states of the positions that its last row computed and the layer has not seen; the slot's next row brings
// the token after them.
#include <algorithm>

#include "engine/drafter.h"
#include "sample/sampler.h"

namespace fathom::engine {
namespace {

class DraftLayer final : public Drafter {
 public:
  DraftLayer(ModelRanks& model, int32_t slots)
      : model_(model), width_(model.model().config().hidden_size), slots_(static_cast<size_t>(slots)) {}

  void open(int32_t slot, const SlotInit& /*init*/) override { slots_[static_cast<size_t>(slot)] = {}; }

  void draft(device::Launch& launch, std::span<DraftRow> rows) override {
    clear();
    drafting_.clear();
    for (DraftRow& row : rows) {
      Slot& slot = slots_[static_cast<size_t>(row.slot)];
      const int32_t behind = slot.behind(width_);
      if (behind == 0) continue;
      add_behind(row.slot, row.start, row.last_token, row.block_table);
      decode_rows_.push_back(
          {static_cast<int32_t>(token_ids_.size()) - behind, behind, row.start - behind, row.block_table});
      if (row.drafts == 0) continue;
      drafting_.push_back(&row);
      logit_rows_.push_back(static_cast<int32_t>(token_ids_.size()) - 1);
    }
    while (!token_ids_.empty()) {
      const model::ForwardOutput output = run(launch);
      choose(launch, output.logits);
      // The next guess of those that want one more.
      std::vector<const float*> states;
      for (const int32_t row : logit_rows_) states.push_back(output.hidden.row<float>(row));
      clear();
      size_t kept = 0;
      for (size_t i = 0; i < drafting_.size(); ++i) {
        DraftRow& row = *drafting_[i];
        const auto guessed = row.guesses.size();
        if (guessed == row.drafts) continue;
        const auto index = static_cast<int32_t>(token_ids_.size());
        const int32_t position = row.start + guessed - 1;
        add(row.guesses.tokens.back(), position, row.block_table, states[i]);
        decode_rows_.push_back({index, 1, position, row.block_table});
        logit_rows_.push_back(index);
        drafting_[kept++] = &row;
      }
      drafting_.resize(kept);
    }
  }

  void follow(device::Launch& launch, std::span<const ComputedRow> rows,
              const device::Tensor& hidden) override {
    clear();
    for (const RowMode mode : {RowMode::kExtend, RowMode::kDecode}) {
      for (const ComputedRow& row : rows) {
        if (row.named && row.mode == mode) catch_up(row, hidden);
      }
    }
    if (!token_ids_.empty()) run(launch);
    for (const ComputedRow& row : rows) keep(row, hidden);
  }

 private:
  struct Slot {
    std::vector<float> hidden;    // [behind, H] of the last positions computed
    std::vector<int32_t> tokens;  // [behind - 1] the token after each, but for the last
    int32_t behind(int64_t width) const {
      return static_cast<int32_t>(static_cast<int64_t>(hidden.size()) / width);
    }
  };

  void clear() {
    token_ids_.clear();
    positions_.clear();
    places_.clear();
    hidden_.clear();
    extend_rows_.clear();
    decode_rows_.clear();
    logit_rows_.clear();
  }

  void add(int32_t next_token, int32_t position, const int32_t* block_table, const float* hidden) {
    const auto page_size = static_cast<int32_t>(model_.page_size());
    token_ids_.push_back(next_token);
    positions_.push_back(position);
    places_.push_back(int64_t{block_table[position / page_size]} * page_size + position % page_size);
    hidden_.push_back(hidden);
  }

  // The positions before `start` that the layer has not seen; `token` stands at `start`.
  void add_behind(int32_t index, int32_t start, int32_t token, const int32_t* block_table) {
    const Slot& slot = slots_[static_cast<size_t>(index)];
    const int32_t behind = slot.behind(width_);
    for (int32_t i = 0; i < behind; ++i) {
      const bool last = i + 1 == behind;
      add(last ? token : slot.tokens[static_cast<size_t>(i)], start - behind + i, block_table,
          slot.hidden.data() + i * width_);
    }
  }

  void catch_up(const ComputedRow& row, const device::Tensor& hidden) {
    const auto first = static_cast<int32_t>(token_ids_.size());
    add_behind(row.slot, row.start, row.tokens.front(), row.block_table);
    const auto count = static_cast<int32_t>(row.tokens.size());
    for (int32_t i = 0; i + 1 < count; ++i) {
      add(row.tokens[static_cast<size_t>(i) + 1], row.start + i, row.block_table,
          hidden.row<float>(row.first + i));
    }
    const auto added = static_cast<int32_t>(token_ids_.size()) - first;
    if (added == 0) return;
    auto& attention = row.mode == RowMode::kExtend ? extend_rows_ : decode_rows_;
    attention.push_back({first, added, positions_[static_cast<size_t>(first)], row.block_table});
  }

  // A named row's entries are written but for the last position's; of another row's none is.
  void keep(const ComputedRow& row, const device::Tensor& hidden) {
    Slot& slot = slots_[static_cast<size_t>(row.slot)];
    const auto count = static_cast<int32_t>(row.tokens.size());
    const int32_t begin = row.named ? count - 1 : 0;
    slot.hidden.clear();
    for (int32_t i = begin; i < count; ++i) {
      const float* state = hidden.row<float>(row.first + i);
      slot.hidden.insert(slot.hidden.end(), state, state + width_);
    }
    slot.tokens.assign(row.tokens.begin() + begin + 1, row.tokens.end());
  }

  model::ForwardOutput run(device::Launch& launch) {
    model::DraftBatch draft;
    draft.batch.tokens = static_cast<int64_t>(token_ids_.size());
    draft.batch.token_ids = token_ids_.data();
    draft.batch.positions = positions_.data();
    draft.batch.places = places_.data();
    draft.batch.extend_rows = extend_rows_;
    draft.batch.decode_rows = decode_rows_;
    draft.batch.logit_rows = logit_rows_;
    draft.hidden = hidden_;
    model::ForwardOutput output;
    model_.draft(launch, draft, &output);
    return output;
  }

  // With the sequence's own parameters and draws: where the layer agrees with the model, so do their choices.
  void choose(device::Launch& launch, const device::Tensor& logits) {
    launch.pool().parallel_for(
        static_cast<int64_t>(drafting_.size()), 1, [&](int64_t begin, int64_t end, int) {
          for (int64_t i = begin; i < end; ++i) {
            DraftRow& row = *drafting_[static_cast<size_t>(i)];
            row.guesses.extend(sample::choose_token(logits.row<float>(i), logits.dim(1),
                                                    row.sampler->params(),
                                                    row.sampler->generated() + row.guesses.size()));
          }
        });
  }

  ModelRanks& model_;
  const int64_t width_;  // H
  std::vector<Slot> slots_;
  // The batch of a pass.
  std::vector<int32_t> token_ids_, positions_, logit_rows_;
  std::vector<int64_t> places_;
  std::vector<const float*> hidden_;
  std::vector<ops::AttentionRow> extend_rows_, decode_rows_;
  std::vector<DraftRow*> drafting_;  // beside logit_rows_
};

}  // namespace

std::unique_ptr<Drafter> make_draft_layer(ModelRanks& model, int32_t slots) {
  return std::make_unique<DraftLayer>(model, slots);
}

}  // namespace fathom::engine

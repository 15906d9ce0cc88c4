// Drafts with the model's MTP layer, used again and again: the hidden state that it gives takes the place of
// the model's for the next guess.
//
// The layer is behind the model: its entry of a position needs the next token. So a slot keeps the hidden
// states of the positions that its last row computed and the layer has not seen; the slot's next row brings
// the token after them.
//
// With branches, each pass drafts from the most likely candidates of the pass before. Their entries stand at
// the same positions, so each has a place of its own among those that the row has for guesses, and sees its
// branch's. None of these entries lasts: the layer writes them again once the model's hidden states are
// known.
#include <algorithm>
#include <cmath>
#include <functional>

#include "engine/draft_tree.h"
#include "engine/drafter.h"
#include "sample/logprobs.h"
#include "sample/sampler.h"

namespace fathom::engine {
namespace {

class DraftLayer final : public Drafter {
 public:
  DraftLayer(ModelRanks& model, int32_t slots, const Speculation& speculation)
      : model_(model),
        speculation_(speculation),
        width_(model.model().config().hidden_size),
        slots_(static_cast<size_t>(slots)) {}

  void open(int32_t slot, const SlotInit& /*init*/) override { slots_[static_cast<size_t>(slot)] = {}; }

  void draft(device::Launch& launch, std::span<DraftRow> rows) override {
    clear();
    num_growing_ = 0;
    for (DraftRow& row : rows) {
      const int32_t behind = slots_[static_cast<size_t>(row.slot)].behind(width_);
      if (behind == 0) continue;
      add_behind(row.slot, row.start, row.last_token, row.block_table);
      decode_rows_.push_back(
          {static_cast<int32_t>(token_ids_.size()) - behind, behind, row.start - behind, row.block_table});
      if (row.drafts == 0) continue;
      if (num_growing_ == growing_.size()) growing_.emplace_back();
      Growing& growing = growing_[num_growing_++];
      growing.row = &row;
      growing.tree.clear();
      growing.entries = 0;
      growing.beams.clear();
      growing.beams.add(DraftTree::kRoot);
      logit_rows_.push_back(static_cast<int32_t>(token_ids_.size()) - 1);
    }
    for (int32_t depth = 1; !token_ids_.empty(); ++depth) {
      const model::ForwardOutput output = run(launch);
      choose(launch, output.logits);
      states_.clear();
      for (const int32_t row : logit_rows_) states_.push_back(output.hidden.row<float>(row));
      clear();
      size_t first = 0;  // of the sequence's beams
      for (Growing& growing : growing()) {
        const size_t beams = growing.beams.size();
        if (beams > 0) grow(growing, depth, std::span(states_).subspan(first, beams), first);
        first += beams;
      }
    }
    for (Growing& growing : growing()) {
      growing.row->guesses = growing.tree.tree(std::min(growing.row->drafts, speculation_.max_guesses));
    }
  }

  void follow(device::Launch& launch, std::span<const ComputedRow> rows,
              const device::Tensor& hidden) override {
    clear();
    for (const RowMode mode : {RowMode::kExtend, RowMode::kDecode}) {
      for (const ComputedRow& row : rows) {
        if (row.named() && row.mode == mode) catch_up(row, hidden);
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

  // A candidate that a pass drafts from.
  struct Beam {
    int32_t node = DraftTree::kRoot;
    std::vector<int64_t> places{};  // of the branch's entries, from the row's start on
  };
  // Beams, with the memory of those before them.
  class Beams {
   public:
    size_t size() const { return size_; }
    Beam& operator[](size_t index) { return beams_[index]; }
    void clear() { size_ = 0; }
    Beam& add(int32_t node) {
      if (size_ == beams_.size()) beams_.emplace_back();
      Beam& beam = beams_[size_++];
      beam.node = node;
      beam.places.clear();
      return beam;
    }

   private:
    std::vector<Beam> beams_;  // as many as were ever needed
    size_t size_ = 0;
  };
  // A sequence whose draft goes on.
  struct Growing {
    DraftRow* row = nullptr;
    DraftTree tree;
    Beams beams, before;  // of the pass, and of the one before it
    int32_t entries = 0;  // places used
  };
  struct Candidate {
    int32_t token;
    float logprob;
  };
  // Of one logits row, and what they are chosen among.
  struct Candidates {
    std::vector<Candidate> found;
    std::vector<TokenLogprob> top;
  };
  // Where in its sequence a logits row stands: so many guesses on.
  struct Place {
    const DraftRow* row;
    int32_t depth;
  };

  std::span<Growing> growing() { return std::span(growing_).first(num_growing_); }

  void clear() {
    token_ids_.clear();
    positions_.clear();
    places_.clear();
    hidden_.clear();
    extend_rows_.clear();
    decode_rows_.clear();
    logit_rows_.clear();
  }

  int64_t place_of(const int32_t* block_table, int32_t place) const {
    const auto page_size = static_cast<int32_t>(model_.page_size());
    return int64_t{block_table[place / page_size]} * page_size + place % page_size;
  }

  void add(int32_t next_token, int32_t position, int64_t place, const float* hidden) {
    token_ids_.push_back(next_token);
    positions_.push_back(position);
    places_.push_back(place);
    hidden_.push_back(hidden);
  }

  // Takes in the candidates of a pass, and prepares the next one. `states` are what the beams left, `first`
  // the first beam's candidates.
  void grow(Growing& growing, int32_t depth, std::span<const float* const> states, size_t first) {
    DraftRow& row = *growing.row;
    const int32_t begin = growing.tree.size();
    beam_of_.clear();
    for (size_t beam = 0; beam < growing.beams.size(); ++beam) {
      for (const Candidate& candidate : candidates_[first + beam].found) {
        growing.tree.add(growing.beams[beam].node, candidate.token, candidate.logprob);
        beam_of_.push_back(beam);
      }
    }
    std::swap(growing.beams, growing.before);
    growing.beams.clear();
    if (depth >= std::min(speculation_.steps, row.drafts)) return;
    const int32_t position = row.start + depth - 1;
    for (const int32_t node : growing.tree.best(begin, speculation_.branches)) {
      if (growing.entries > row.drafts) return;  // no place is left
      const size_t parent = beam_of_[static_cast<size_t>(node - begin)];
      Beam& beam = growing.beams.add(node);
      beam.places = growing.before[parent].places;
      beam.places.push_back(place_of(row.block_table, row.start + growing.entries++));
      const auto index = static_cast<int32_t>(token_ids_.size());
      add(growing.tree.token(node), position, beam.places.back(), states[parent]);
      decode_rows_.push_back({index, 1, position, row.block_table, beam.places.data(), row.start});
      logit_rows_.push_back(index);
    }
  }

  // The positions before `start` that the layer has not seen; `token` stands at `start`.
  void add_behind(int32_t index, int32_t start, int32_t token, const int32_t* block_table) {
    const Slot& slot = slots_[static_cast<size_t>(index)];
    const int32_t behind = slot.behind(width_);
    for (int32_t i = 0; i < behind; ++i) {
      const bool last = i + 1 == behind;
      const int32_t position = start - behind + i;
      add(last ? token : slot.tokens[static_cast<size_t>(i)], position, place_of(block_table, position),
          slot.hidden.data() + i * width_);
    }
  }

  void catch_up(const ComputedRow& row, const device::Tensor& hidden) {
    const auto first = static_cast<int32_t>(token_ids_.size());
    add_behind(row.slot, row.start, row.tokens.front(), row.block_table);
    const auto count = static_cast<int32_t>(row.tokens.size());
    for (int32_t i = 0; i + 1 < count; ++i) {
      add(row.tokens[static_cast<size_t>(i) + 1], row.start + i, place_of(row.block_table, row.start + i),
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
    const int32_t begin = row.named() ? row.count() - 1 : 0;
    slot.hidden.clear();
    slot.tokens.clear();
    for (int32_t i = begin; i < row.count(); ++i) {
      const float* state = hidden.row<float>(row.index(i));
      slot.hidden.insert(slot.hidden.end(), state, state + width_);
      if (i > begin) slot.tokens.push_back(row.outputs[static_cast<size_t>(i) - 1].token);
    }
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

  // candidates_[i] of logits i. One: with the sequence's own parameters and draws; where the layer agrees
  // with the model, so do their choices. Several: the most likely ones, and the same choice, which counts as
  // the likeliest.
  void choose(device::Launch& launch, const device::Tensor& logits) {
    asked_.clear();
    for (Growing& growing : growing()) {
      for (size_t beam = 0; beam < growing.beams.size(); ++beam)
        asked_.push_back({growing.row, static_cast<int32_t>(growing.beams[beam].places.size())});
    }
    candidates_.resize(std::max(candidates_.size(), asked_.size()));
    const auto body = [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const auto [row, depth] = asked_[static_cast<size_t>(i)];
        find_candidates(logits.row<float>(i), logits.dim(1), *row->sampler, depth,
                        &candidates_[static_cast<size_t>(i)]);
      }
    };
    launch.pool().parallel_for(static_cast<int64_t>(asked_.size()), 1, std::ref(body));
  }

  void find_candidates(const float* logits, int64_t vocab, const sample::SlotSampler& sampler, int32_t depth,
                       Candidates* candidates) const {
    auto& [found, top] = *candidates;
    found.clear();
    const int32_t chosen = sample::choose_token(logits, vocab, sampler.params(), sampler.generated() + depth);
    found.push_back({chosen, 0.0F});
    if (speculation_.branches == 1) return;
    sample::top_logprobs(logits, vocab, sample::log_sum_exp(logits, vocab), speculation_.branches, &top);
    if (!top.empty()) found.front().logprob = top.front().logprob;
    for (const TokenLogprob& entry : top) {
      if (static_cast<int32_t>(found.size()) == speculation_.branches) return;
      if (entry.token != chosen) found.push_back({entry.token, entry.logprob});
    }
  }

  ModelRanks& model_;
  const Speculation speculation_;
  const int64_t width_;  // H
  std::vector<Slot> slots_;
  // The batch of a pass.
  std::vector<int32_t> token_ids_, positions_, logit_rows_;
  std::vector<int64_t> places_;
  std::vector<const float*> hidden_;
  std::vector<ops::AttentionRow> extend_rows_, decode_rows_;
  // Of drafts, each with as many as were ever needed.
  std::vector<Growing> growing_;  // num_growing_ of them; their beams are beside logit_rows_
  size_t num_growing_ = 0;
  std::vector<Candidates> candidates_;  // of each of the pass's logits
  std::vector<Place> asked_;            // beside them
  std::vector<const float*> states_;    // what the pass's beams left
  std::vector<size_t> beam_of_;         // [node] of those that a pass adds to a tree
};

}  // namespace

std::unique_ptr<Drafter> make_draft_layer(ModelRanks& model, int32_t slots, const Speculation& speculation) {
  return std::make_unique<DraftLayer>(model, slots, speculation);
}

}  // namespace fathom::engine

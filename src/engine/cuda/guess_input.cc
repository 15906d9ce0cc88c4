#include "engine/cuda/guess_input.h"

#include <algorithm>
#include <cstring>

#include "base/math.h"

namespace fathom::engine::cuda {
namespace {

// Takes places of a buffer one after another.
class Offsets {
 public:
  explicit Offsets(int64_t begin) : at_(begin) {}
  int64_t take(int64_t bytes) {
    const int64_t begin = at_;
    at_ += round_up<int64_t>(bytes, 16);
    return begin;
  }
  DraftTokensAt tokens(int64_t count) {
    DraftTokensAt at;
    at.ids = take(count * 4);
    at.positions = take(count * 4);
    at.slots = take(count * 4);
    at.states = take(count * 4);
    at.places = take(count * 8);
    return at;
  }
  int64_t at() const { return at_; }

 private:
  int64_t at_;
};

template <class T>
void put(std::byte* to, int64_t offset, const std::vector<T>& values) {
  if (!values.empty()) std::memcpy(to + offset, values.data(), values.size() * sizeof(T));
}

void put(std::byte* to, const DraftTokensAt& at, const DraftTokens& tokens) {
  put(to, at.ids, tokens.ids);
  put(to, at.positions, tokens.positions);
  put(to, at.slots, tokens.slots);
  put(to, at.states, tokens.states);
  put(to, at.places, tokens.places);
}

}  // namespace

void DraftTokens::clear() {
  resize(0);
}

void DraftTokens::resize(int64_t count) {
  for (auto* values : {&ids, &positions, &slots, &states}) values->clear();
  places.clear();
  grow(count);
}

void DraftTokens::grow(int64_t count) {
  const auto size = static_cast<size_t>(count);
  ids.resize(size, 0);
  positions.resize(size, -1);
  slots.resize(size, 0);
  states.resize(size, -1);
  places.resize(size, 0);
}

void DraftTokens::set(int64_t at, int32_t id, int32_t position, int32_t slot, int64_t place, int32_t state) {
  const auto i = static_cast<size_t>(at);
  ids[i] = id;
  positions[i] = position;
  slots[i] = slot;
  places[i] = place;
  states[i] = state;
}

GuessLayout::GuessLayout(const Sizes& sizes, int64_t begin) : rows(sizes.rows) {
  const int32_t max_drafts = sizes.drafts;
  const bool draft_layer = sizes.draft_layer, trees = sizes.tree_tokens > 0;
  Offsets offsets(begin);
  drafts = offsets.take(rows * 4);
  guesses = offsets.take(rows * max_drafts * 4);
  const int64_t passes = draft_layer ? max_drafts : 0;
  const int64_t places = draft_layer ? rows * (1 + max_drafts) : 0;
  behind = offsets.tokens(passes * rows);
  const int64_t laid_out = trees ? std::min<int64_t>(passes, 1) : passes;
  chain = offsets.tokens(draft_layer ? std::max<int64_t>(laid_out, 1) * rows : 0);
  chain_rows = offsets.take(laid_out * rows * 4);
  draft_slots = offsets.take(laid_out * rows * 4);
  keep_from = offsets.take(places * 4);
  keep_to = offsets.take(places * 4);
  slots = offsets.take(trees ? rows * 4 : 0);
  starts = offsets.take(trees ? rows * 4 : 0);
  firsts = offsets.take(trees ? rows * 4 : 0);
  tail_starts = offsets.take(sizes.tree_tokens * 4);
  end = offsets.at();
}

void GuessInput::clear() {
  rows.clear();
  for (auto* values : {&drafts, &guesses, &chain_rows, &draft_slots, &keep_from, &keep_to, &slots, &starts,
                       &firsts, &tail_starts}) {
    values->clear();
  }
  behind.clear();
  chain.clear();
}

void GuessInput::write(const GuessLayout& layout, std::byte* to) const {
  put(to, layout.drafts, drafts);
  put(to, layout.guesses, guesses);
  put(to, layout.behind, behind);
  put(to, layout.chain, chain);
  put(to, layout.chain_rows, chain_rows);
  put(to, layout.draft_slots, draft_slots);
  put(to, layout.keep_from, keep_from);
  put(to, layout.keep_to, keep_to);
  put(to, layout.slots, slots);
  put(to, layout.starts, starts);
  put(to, layout.firsts, firsts);
  put(to, layout.tail_starts, tail_starts);
}

void FollowInput::clear() {
  tokens.clear();
  keep_from.clear();
  keep_to.clear();
}

int64_t FollowInput::write(std::byte* to, int64_t begin) {
  Offsets offsets(round_up<int64_t>(begin, 16));
  at = offsets.tokens(tokens.size());
  keep_from_at = offsets.take(static_cast<int64_t>(keep_from.size()) * 4);
  keep_to_at = offsets.take(static_cast<int64_t>(keep_to.size()) * 4);
  put(to, at, tokens);
  put(to, keep_from_at, keep_from);
  put(to, keep_to_at, keep_to);
  return offsets.at();
}

model::cuda::GpuBatch batch_of(const DraftTokensAt& at, std::byte* base, int64_t begin, int64_t count,
                               const SlotTables& tables) {
  model::cuda::GpuBatch batch;
  batch.view.tokens = count;
  batch.view.positions = reinterpret_cast<const int32_t*>(base + at.positions) + begin;
  batch.view.places = reinterpret_cast<const int64_t*>(base + at.places) + begin;
  batch.view.slots = reinterpret_cast<const int32_t*>(base + at.slots) + begin;
  batch.view.block_tables = tables.block_tables;
  batch.view.table_stride = tables.stride;
  batch.token_ids = reinterpret_cast<const int32_t*>(base + at.ids) + begin;
  batch.most_places = tables.most_places;
  return batch;
}

}  // namespace fathom::engine::cuda

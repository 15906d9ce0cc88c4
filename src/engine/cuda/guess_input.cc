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
  const auto size = static_cast<size_t>(count);
  ids.assign(size, 0);
  positions.assign(size, -1);
  slots.assign(size, 0);
  states.assign(size, -1);
  places.assign(size, 0);
}

void DraftTokens::set(int64_t at, int32_t id, int32_t position, int32_t slot, int64_t place, int32_t state) {
  const auto i = static_cast<size_t>(at);
  ids[i] = id;
  positions[i] = position;
  slots[i] = slot;
  places[i] = place;
  states[i] = state;
}

GuessLayout::GuessLayout(int64_t rows_in, int32_t max_drafts, bool draft_layer, int64_t begin)
    : rows(rows_in) {
  Offsets offsets(begin);
  drafts = offsets.take(rows * 4);
  guesses = offsets.take(rows * max_drafts * 4);
  const int64_t passes = draft_layer ? max_drafts : 0;
  const int64_t places = draft_layer ? rows * (1 + max_drafts) : 0;
  behind = offsets.tokens(passes > 0 ? places : 0);
  behind_last = offsets.take(passes > 0 ? rows * 4 : 0);
  const int64_t later = std::max<int64_t>(passes - 1, 0) * rows;
  chain = offsets.tokens(later);
  chain_rows = offsets.take(later * 4);
  draft_slots = offsets.take(passes * rows * 4);
  keep_from = offsets.take(places * 4);
  keep_to = offsets.take(places * 4);
  end = offsets.at();
}

void GuessInput::clear() {
  rows.clear();
  for (auto* values : {&drafts, &guesses, &behind_last, &chain_rows, &draft_slots, &keep_from, &keep_to}) {
    values->clear();
  }
  behind.clear();
  chain.clear();
}

void GuessInput::write(const GuessLayout& layout, std::byte* to) const {
  put(to, layout.drafts, drafts);
  put(to, layout.guesses, guesses);
  put(to, layout.behind, behind);
  put(to, layout.behind_last, behind_last);
  put(to, layout.chain, chain);
  put(to, layout.chain_rows, chain_rows);
  put(to, layout.draft_slots, draft_slots);
  put(to, layout.keep_from, keep_from);
  put(to, layout.keep_to, keep_to);
}

void FollowInput::clear() {
  tokens.clear();
  extend_rows.clear();
  extend_tokens = 0;
  keep_from.clear();
  keep_to.clear();
}

int64_t FollowInput::write(std::byte* to, const std::byte* device, int64_t begin) {
  Offsets offsets(round_up<int64_t>(begin, 16));
  at = offsets.tokens(tokens.size());
  keep_from_at = offsets.take(static_cast<int64_t>(keep_from.size()) * 4);
  keep_to_at = offsets.take(static_cast<int64_t>(keep_to.size()) * 4);
  put(to, at, tokens);
  put(to, keep_from_at, keep_from);
  put(to, keep_to_at, keep_to);
  passes = model::cuda::plan_passes(extend_rows);
  for (auto& pass : passes) {
    const int64_t rows = offsets.take(static_cast<int64_t>(pass.rows.size() * sizeof(pass.rows[0])));
    put(to, rows, pass.rows);
    pass.device_rows = reinterpret_cast<const ops::cuda::ExtendRow*>(device + rows);
  }
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
  return batch;
}

}  // namespace fathom::engine::cuda

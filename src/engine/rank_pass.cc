#include "engine/rank_pass.h"

#include "base/math.h"

namespace fathom::engine {

RankPass RankPass::idle(Kind kind) {
  RankPass pass;
  pass.kind = kind;
  return pass;
}

RankPass RankPass::forward(const model::ForwardBatch& batch, int64_t page_size) {
  RankPass pass;
  pass.token_ids.assign(batch.token_ids, batch.token_ids + batch.tokens);
  pass.positions.assign(batch.positions, batch.positions + batch.tokens);
  pass.logit_rows.assign(batch.logit_rows.begin(), batch.logit_rows.end());
  pass.places.assign(batch.places, batch.places + batch.tokens);
  pass.moves.assign(batch.moves.begin(), batch.moves.end());
  pass.tables.reserve(batch.extend_rows.size() + batch.decode_rows.size());
  pass.tails.reserve(batch.decode_rows.size());
  const auto copy = [&](std::span<const ops::AttentionRow> from, std::vector<ops::AttentionRow>& to) {
    for (ops::AttentionRow row : from) {
      const int64_t pages = ceil_div<int64_t>(row.start + row.count, page_size);
      pass.tables.emplace_back(row.block_table, row.block_table + pages);
      row.block_table = pass.tables.back().data();
      if (row.tail != nullptr) {
        pass.tails.emplace_back(row.tail, row.tail + (row.start + row.count - row.tail_start));
        row.tail = pass.tails.back().data();
      }
      to.push_back(row);
    }
  };
  copy(batch.extend_rows, pass.extend_rows);
  copy(batch.decode_rows, pass.decode_rows);
  return pass;
}

RankPass RankPass::draft(const model::DraftBatch& draft, int64_t page_size, int64_t hidden_size) {
  RankPass pass = forward(draft.batch, page_size);
  pass.kind = Kind::kDraft;
  pass.hidden.reserve(draft.hidden.size() * static_cast<size_t>(hidden_size));
  for (const float* state : draft.hidden) pass.hidden.insert(pass.hidden.end(), state, state + hidden_size);
  return pass;
}

RankPass RankPass::logits(std::span<const int32_t> rows) {
  RankPass pass = idle(Kind::kLogits);
  pass.logit_rows.assign(rows.begin(), rows.end());
  return pass;
}

model::ForwardBatch RankPass::batch(const model::KvPool& cache, std::span<const int64_t> group_tokens) const {
  model::ForwardBatch batch;
  batch.tokens = tokens();
  batch.token_ids = token_ids.data();
  batch.positions = positions.data();
  batch.places = places.data();
  batch.extend_rows = extend_rows;
  batch.decode_rows = decode_rows;
  batch.logit_rows = logit_rows;
  batch.moves = moves;
  batch.cache = &cache;
  batch.group_tokens = group_tokens;
  return batch;
}

}  // namespace fathom::engine

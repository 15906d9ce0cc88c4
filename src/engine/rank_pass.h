// What a rank is told of one pass: integers (and, to draft, hidden states), so that it needs to know nothing
// of requests. Owns all that it names: who told it goes on while ranks still look at it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "model/model.h"

namespace fathom::engine {

struct RankPass {
  enum class Kind { kForward, kDraft, kLogits };

  Kind kind = Kind::kForward;
  std::vector<int32_t> token_ids, positions, logit_rows;
  std::vector<int64_t> places;
  // Their block tables are in `tables`, in the order of the extend rows, then the decode rows.
  std::vector<ops::AttentionRow> extend_rows, decode_rows;
  std::vector<std::vector<int32_t>> tables;
  std::vector<std::vector<int64_t>> tails;  // of those decode rows that have one, in their order
  std::vector<model::KvMove> moves;
  std::vector<float> hidden;  // [T, H] of a draft

  // Nothing to compute: the part of ranks that have no requests.
  static RankPass idle(Kind kind);
  static RankPass forward(const model::ForwardBatch& batch, int64_t page_size);
  static RankPass draft(const model::DraftBatch& batch, int64_t page_size, int64_t hidden_size);
  // Further logits of the last forward.
  static RankPass logits(std::span<const int32_t> rows);

  int64_t tokens() const { return static_cast<int64_t>(token_ids.size()); }
  // Views of this pass. `group_tokens` as in ForwardBatch.
  model::ForwardBatch batch(const model::KvPool& cache, std::span<const int64_t> group_tokens) const;
};

// One pass of all ranks: what each group of requests computes in it.
struct WorldPass {
  std::vector<std::shared_ptr<const RankPass>> groups;  // null: the ranks of this group sleep through it
  std::vector<int64_t> group_tokens;                    // empty with one group
  bool balance_experts = false;                         // before it
  int64_t pages = 0;  // above 0: no pass, but how many KV pages this node has room for
};

}  // namespace fathom::engine

// What a speculative step brings to the GPU beside StepInput: the guesses, or what the draft layer needs to
// make them. Laid out for a padded number of sampling rows, like StepLayout.
//
// A row that verifies takes D = 1 + drafts tokens of the step, whether it has as many guesses or not; in a
// step without any guess, D is 1. Its draft is a chain: a first pass at the position before the row's, then
// one pass of one token for each further guess. The layer may be D places behind (engine/draft_layer.cc);
// of those before the last it needs the entries alone. Without guesses that is all that it does.
#pragma once

#include <cstdint>
#include <vector>

#include "core/executor.h"
#include "engine/cuda/step_input.h"

namespace fathom::engine::cuda {

// Token id -2 - (kGuessStride s + i): guess i of sampling row s, wherever that is found.
inline constexpr int32_t kGuessStride = 16;
constexpr int32_t guess_id(int64_t row, int32_t i) {
  return -2 - (kGuessStride * static_cast<int32_t>(row) + i);
}

// Tokens for the draft layer: the arrays of a GpuBatch, and whose hidden state stands before each.
struct DraftTokens {
  std::vector<int32_t> ids, positions, slots, states;
  std::vector<int64_t> places;

  void clear();
  // Padding: no op looks at it.
  void resize(int64_t count);
  void grow(int64_t count);  // keeps what is there
  void set(int64_t at, int32_t id, int32_t position, int32_t slot, int64_t place, int32_t state);
  int64_t size() const { return static_cast<int64_t>(ids.size()); }
};

// Byte offsets, within the step's buffer, of DraftTokens.
struct DraftTokensAt {
  int64_t ids = 0, positions = 0, slots = 0, states = 0, places = 0;
};

// S sampling rows, padding included, of at most K drafts, perhaps none. Where guesses are trees, K are the
// passes, and all but the first are laid out on the GPU (tree_kernels.h); the step then has tree_tokens. The
// arrays start at `begin`.
struct GuessLayout {
  struct Sizes {
    int64_t rows = 0;
    int32_t drafts = 0;
    bool draft_layer = false;
    int64_t tree_tokens = 0;  // 0: no trees
  };
  GuessLayout(const Sizes& sizes, int64_t begin);

  int64_t rows, end;
  int64_t drafts;                 // [S] guesses of each; of trees, the places for them
  int64_t guesses;                // [K, S]; written by the GPU where the draft layer guesses
  DraftTokensAt behind;           // [S K] entries alone; this and what follows for the draft layer alone
  DraftTokensAt chain;            // [max(K, 1), S] the passes; where K is 0, entries alone
  int64_t chain_rows;             // [K, S] the row itself, or -1
  int64_t draft_slots;            // [K, S] the slots that guess in each pass, or -1
  int64_t keep_from, keep_to;     // [S (1 + K)]; of trees written by the GPU
  int64_t slots, starts, firsts;  // [S] of trees: TreeRows
  int64_t tail_starts;            // [step's tokens] of trees: ops::cuda::Branches
};

// The host's side.
struct GuessInput {
  // A decode row that goes on from its slot's last token.
  struct Row {
    int64_t sampling = 0;  // its place among the sampling rows
    int32_t slot = 0, start = 0;
    int32_t first = 0;             // its first token in the step
    int32_t drafts = 0;            // guesses; of a tree, the places for them
    std::vector<int32_t> guesses;  // where the host knows them
  };
  std::vector<Row> rows;
  std::vector<int32_t> drafts, guesses, chain_rows, draft_slots, keep_from, keep_to;
  std::vector<int32_t> slots, starts, firsts, tail_starts;
  DraftTokens behind, chain;

  void clear();
  void write(const GuessLayout& layout, std::byte* to) const;
};

// Entries that the draft layer writes outside a graph: of rows that name their tokens, after the step; and
// ahead of a step without guesses, where rows are more than one place behind.
struct FollowInput {
  DraftTokens tokens;
  std::vector<int32_t> keep_from, keep_to;  // of named rows, the last hidden state

  // Where write() has put them.
  DraftTokensAt at;
  int64_t keep_from_at = 0, keep_to_at = 0;

  void clear();
  // Behind the step's other arrays, from `begin` on; returns where they end.
  int64_t write(std::byte* to, int64_t begin);
};

// Device addresses of a DraftTokens at `base`.
model::cuda::GpuBatch batch_of(const DraftTokensAt& at, std::byte* base, int64_t begin, int64_t count,
                               const SlotTables& tables);

}  // namespace fathom::engine::cuda

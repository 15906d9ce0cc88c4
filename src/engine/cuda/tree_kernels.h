// The guesses of a step as trees, on the GPU (engine/draft_tree.h and engine/draft_layer.cc are the
// specification): how they grow from pass to pass of the draft layer, which of them are verified, and which
// entries and hidden states are left of them. Nothing here waits for the host; all of it may be part of a
// captured graph.
//
// Of S sampling rows, B branches, L passes, and at most N guesses that are verified. A row's tokens in the
// step are its last one and its guesses in depth-first order: W = 1 + N places, in the order of which their
// entries lie in the cache from the row's start on. Guess i is place 1 + i.
#pragma once

#include <cstdint>

#include "device/cuda/memory.h"
#include "device/cuda/stream.h"
#include "engine/cuda/step_input.h"

namespace fathom::engine::cuda {

struct TreeShape {
  int32_t passes = 0, branches = 0, guesses = 0;  // L, B, N

  constexpr int32_t width() const { return 1 + guesses; }  // W
  // Choices of a row, at most: no branch is longer than the passes, or than what is verified.
  constexpr int32_t choices() const { return 1 + (passes < guesses ? passes : guesses); }
  // Nodes that a tree grows to.
  constexpr int32_t nodes() const { return branches + branches * branches * (passes - 1); }
  // Guesses of a row that may use `drafts` places.
  int32_t guesses_of(int32_t drafts) const;
};

// What the host brings of each of S sampling rows, on the device. A row that does not guess has drafts 0.
struct TreeRows {
  int64_t rows = 0;
  const int32_t* slots = nullptr;
  const int32_t* starts = nullptr;  // position of the last token
  const int32_t* firsts = nullptr;  // its place among the step's tokens
  const int32_t* drafts = nullptr;  // places after it that the row may use
};

// Device memory of the trees, in an arena.
struct TreeMemory {
  // Of at most `rows` rows in a step of `tokens` tokens.
  static Result<TreeMemory> allocate(const TreeShape& shape, int64_t rows, int64_t tokens,
                                     device::cuda::DeviceArena& arena);

  TreeShape shape;
  // The trees while they grow: [S, nodes].
  int32_t* tokens = nullptr;
  int32_t* parents = nullptr;  // -1: the last token
  float* logprobs = nullptr;   // of the branch
  int32_t* sizes = nullptr;    // [S] nodes so far
  int32_t* entries = nullptr;  // [S] places that the draft layer has used
  // What a pass leaves: its choices [S B] and, of each beam, the most likely tokens [S B, B].
  int32_t* chosen = nullptr;
  float* chosen_logprobs = nullptr;
  int32_t* top_tokens = nullptr;
  float* top_logprobs = nullptr;
  // Tokens [S B] of a pass after the first; two of these take turns.
  struct Beams {
    int32_t* nodes = nullptr;  // the node that is drafted from, -1: none
    int32_t* positions = nullptr;
    int32_t* ids = nullptr;
    int32_t* slots = nullptr;
    int32_t* states = nullptr;       // as model::cuda::Model::draft() wants them
    int32_t* logit_rows = nullptr;   // itself, or -1
    int32_t* draft_slots = nullptr;  // its slot, or -1
    int64_t* places = nullptr;
    int32_t* tail_starts = nullptr;
    int64_t* tails = nullptr;  // [S B, tail_stride()] the entries of its branch
  };
  Beams beams[2];
  // What is verified, [S, W]: of each place its token, and its parent's place or -1.
  int32_t* place_tokens = nullptr;
  int32_t* place_parents = nullptr;
  int64_t* tails = nullptr;  // [step's tokens, tail_stride()]
  // The choice: [choices(), S] the place that has held so far, as s W + place.
  int32_t* logit_rows = nullptr;
  int32_t* guessed = nullptr;  // [choices(), S, B] the guesses after it, -1: none

  constexpr int64_t tail_stride() const { return shape.passes + 1; }
};

// Takes in what pass `pass` has left: of one beam a row for the first pass, of B for the others. Lays out the
// next pass in beams[(pass + 1) % 2], unless it was the last. The hidden states are draft_state + s, or + s B
// + b.
void grow_trees(device::cuda::Stream& stream, const TreeMemory& memory, const TreeRows& rows, int32_t pass,
                int32_t draft_state, const SlotTables& tables, int64_t page_size);

// The likeliest nodes become the step's tokens: writes ids and positions of the rows' places after the first
// (position -1: not used), logit_rows [S W] of all that guess, and the memory's arrays for the choice.
struct PickedTokens {
  int32_t* ids = nullptr;  // [step's tokens]
  int32_t* positions = nullptr;
  int32_t* logit_rows = nullptr;
};
void pick_trees(device::cuda::Stream& stream, const TreeMemory& memory, const TreeRows& rows,
                const PickedTokens& step, const SlotTables& tables, int64_t page_size);

// After the choice, which has left its tokens [choices(), S] (-1: none): moves the entries of guesses that
// held to where the sequence goes on, in `layers` layers of the cache, and says whose hidden states are to be
// kept: keep_from [S, choices()] tokens of the step, keep_to their places, slot * choices() + i; or -1.
struct SettledStates {
  int32_t* keep_from = nullptr;
  int32_t* keep_to = nullptr;
};
void settle_trees(device::cuda::Stream& stream, const TreeMemory& memory, const TreeRows& rows,
                  const int32_t* tokens, const SettledStates& states, const model::cuda::KvPool& cache,
                  int64_t layers, const SlotTables& tables);

}  // namespace fathom::engine::cuda

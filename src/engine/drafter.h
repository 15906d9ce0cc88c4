// Guesses the next tokens of running sequences, for the CPU engine to verify in its next forward pass. A
// guess costs time when it is wrong, never a different token.
//
// Used by the engine's thread alone.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/executor.h"
#include "device/launch.h"
#include "engine/model_ranks.h"
#include "engine/speculation.h"
#include "model/model.h"
#include "sample/guess_tree.h"
#include "sample/slot_sampler.h"

namespace fathom::engine {

// A decode row that is about to run.
struct DraftRow {
  int32_t slot = 0;
  int32_t start = 0;  // position of its first token, `last_token`
  int32_t last_token = 0;
  int32_t drafts = 0;                    // guesses at most
  const int32_t* block_table = nullptr;  // covers start + 1 + drafts places
  const sample::SlotSampler* sampler = nullptr;
  sample::GuessTree guesses;  // out: at most `drafts`
};

// A row that has run.
struct ComputedRow {
  int32_t slot = 0;
  RowMode mode = RowMode::kDecode;
  int32_t start = 0;
  int32_t first = 0;                // its first token in the batch
  std::span<const int32_t> tokens;  // of a row that named them; empty: it went on from its last token
  std::span<const int32_t> held{};  // of its guesses, the nodes that held; guess i is token first + 1 + i
  const int32_t* block_table = nullptr;
  std::span<const TokenOutput> outputs;  // chosen

  bool named() const { return !tokens.empty(); }
  // Positions that it has computed and that hold.
  int32_t count() const { return static_cast<int32_t>(named() ? tokens.size() : 1 + held.size()); }
  // In the batch, of position start + i.
  int32_t index(int32_t i) const {
    return named() || i == 0 ? first + i : first + 1 + held[static_cast<size_t>(i) - 1];
  }
};

class Drafter {
 public:
  virtual ~Drafter() = default;

  virtual void open(int32_t slot, const SlotInit& init) = 0;
  // Before the forward pass.
  virtual void draft(device::Launch& launch, std::span<DraftRow> rows) = 0;
  // After the choice of tokens; `hidden` [T, H] are the forward pass's.
  virtual void follow(device::Launch& launch, std::span<const ComputedRow> rows,
                      const device::Tensor& hidden) = 0;
};

// `model` must outlive it.
std::unique_ptr<Drafter> make_draft_layer(ModelRanks& model, int32_t slots, const Speculation& speculation);
std::unique_ptr<Drafter> make_lookup(int32_t slots);

}  // namespace fathom::engine

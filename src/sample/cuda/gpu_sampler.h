// Logits to tokens on the GPU. sample/sampler.h is the specification: the same choices from the same logits,
// except where a draw falls within rounding (1e-6) of the border between two tokens. A row's token is the
// same whatever else is in the batch: masses are added as whole numbers, in any order.
//
// The state of the running sequences stays on the device. A step is: open() for each new slot, flush(), then
// sample(), which reads nothing of the host and may be part of a captured graph; it also counts the token.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "core/executor.h"
#include "device/cuda/memory.h"
#include "device/cuda/stream.h"

namespace fathom::sample::cuda {

struct Slot;     // state.cuh
struct Scratch;  // state.cuh
struct Pools;    // state.cuh

struct GpuSamplerSizes {
  int32_t slots = 0;
  int64_t vocab = 0;  // at most 262,144
  int64_t rows = 0;   // of one call
};

// All pointers are device memory, and fixed for a captured graph.
struct SampleArgs {
  const float* logits = nullptr;  // [R, V], or [*, V] with logit_rows
  // [R] the row of `logits`, and of allowed_rows, that row r looks at; null: r.
  const int32_t* logit_rows = nullptr;
  // [R, V], for the logits of rows with bias, penalties, bans or a mask, after those. May be `logits`, which
  // is then overwritten; another buffer keeps the logits for logprobs(). Other rows are not written.
  float* adjusted = nullptr;
  int64_t rows = 0;                    // R
  const int32_t* row_slots = nullptr;  // [R] -1: nothing is chosen. A slot is in one row at most.
  int32_t* last_tokens = nullptr;      // [slots] receives each slot's token
  int32_t* tokens = nullptr;           // [R] the same by row; -1 where nothing is chosen
  // Bit id % 32 of word id / 32 says whether a token is allowed. Row r's mask is allowed_rows[r], -1: none.
  const uint32_t* allowed = nullptr;      // [masks, ceil(V / 32)], or null: no masks
  const int32_t* allowed_rows = nullptr;  // [R]
  // false: every row is greedy (draws() says so). Spares the launches for the others.
  bool draws = true;
  // The threshold rule of sample/sampler.h, where `guessed` is set: [R, guesses] what was guessed for the
  // place, -1: nothing.
  const int32_t* guessed = nullptr;
  int32_t guesses = 0;  // at most kMaxGuesses
  float threshold_single = 1.0F, threshold_acc = 1.0F;
  // Not negative: a guess at the slot's token so many tokens further on, with its parameters and that
  // token's draw, without bias, penalties, bans and masks. Only `tokens` is written; nothing is counted.
  int32_t ahead = -1;
};

// Which rows go on after sample() has chosen their token, because it is the one that was guessed and does not
// end the sequence.
struct FollowArgs {
  int64_t rows = 0;                    // R
  const int32_t* tokens = nullptr;     // [R] chosen
  const int32_t* guesses = nullptr;    // [R] in the same place
  const int32_t* drafts = nullptr;     // [R] guesses of the row in all
  int32_t position = 0;                // of this guess, from 0
  const int32_t* row_slots = nullptr;  // [R] of the choice
  int32_t* next_slots = nullptr;       // [R] of the next one: the same, or -1
  // Not negative: to measure, guesses hold with this probability whatever was chosen.
  float simulated = -1.0F;
};

// The same where guesses are trees of W places each: 0 stands for the slot's last token, and each other one
// follows its parent.
struct FollowTreeArgs {
  int64_t rows = 0;                        // R
  int32_t width = 0;                       // W
  const int32_t* tokens = nullptr;         // [R] chosen
  const int32_t* row_slots = nullptr;      // [R] of the choice
  const int32_t* logit_rows = nullptr;     // [R] r W + the place after which it was made
  const int32_t* place_tokens = nullptr;   // [R, W] guessed
  const int32_t* place_parents = nullptr;  // [R, W] -1: no such place
  int32_t* next_slots = nullptr;           // [R] of the next choice: the same, or -1
  int32_t* next_logit_rows = nullptr;      // [R] with the place of the token
  int32_t* next_guessed = nullptr;  // [R, each] what was guessed after that, in order of places; then -1
  int32_t each = 0;
  float simulated = -1.0F;  // as FollowArgs; where it holds, the first guess does
};

struct LogprobArgs {
  const float* logits = nullptr;        // [*, V], untouched by sample()
  int64_t rows = 0;                     // R
  const int32_t* logit_rows = nullptr;  // [R] the row of `logits` to look at; null: row r
  const int32_t* tokens = nullptr;      // [R] the tokens that stand there, -1: skip this row
  int32_t top = 0;                      // 0 .. kMaxTop
  int32_t requested_ids = 0;            // N
  const int32_t* requested = nullptr;   // [R, N] further tokens to tell of, -1: none
  // Natural logarithms; -inf for an id outside the vocabulary. Skipped rows are not written.
  float* token_logprobs = nullptr;      // [R]
  int32_t* top_tokens = nullptr;        // [R, top] most likely first; -1 beyond the vocabulary
  float* top_logprobs = nullptr;        // [R, top]
  float* requested_logprobs = nullptr;  // [R, N]
};

// Owns its state, which lives in the arena given to create(). Not thread safe: one thread, one stream.
class GpuSampler {
 public:
  static constexpr int32_t kMaxTop = 128;
  static constexpr int32_t kMaxGuesses = 16;  // for one place
  static constexpr size_t kMaxBias = 1024;
  static constexpr size_t kMaxStops = 256;

  // Takes rows * (V / 10 + 64 KiB) + slots * (4 V + 9 KiB) bytes of the arena, and 1 MiB of pinned memory.
  static Result<std::unique_ptr<GpuSampler>> create(device::cuda::Stream& stream,
                                                    device::cuda::DeviceArena& arena,
                                                    const GpuSamplerSizes& sizes);
  ~GpuSampler();

  // Starts a sequence in the slot, whatever was there; `init.output` restores a preempted one. Copies what it
  // needs; takes effect at flush(). An error where a list is longer than the limits above. Waits only while
  // the staging memory is full of what the device has not yet read.
  Result<void> open(int32_t slot, const SlotInit& init);
  // Sends what was opened, in the stream's order. Not to be captured.
  void flush();

  // Whether any of these slots draws at random.
  bool draws(std::span<const int32_t> slots) const;

  void sample(const SampleArgs& args);
  void follow(const FollowArgs& args);
  void follow(const FollowTreeArgs& args);
  void logprobs(const LogprobArgs& args);

 private:
  class Staging;

  GpuSampler(device::cuda::Stream& stream, const GpuSamplerSizes& sizes);

  device::cuda::Stream& stream_;
  GpuSamplerSizes sizes_;
  std::unique_ptr<Pools> pools_;
  std::unique_ptr<Scratch> scratch_;
  std::unique_ptr<Staging> staging_;
  std::vector<bool> draws_;  // [slots]
};

}  // namespace fathom::sample::cuda

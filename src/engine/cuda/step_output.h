// What a step brings back from the GPU: tokens, and what was asked to be told about them.
#pragma once

#include <cstdint>
#include <vector>

#include "core/executor.h"
#include "device/cuda/memory.h"
#include "device/cuda/stream.h"
#include "engine/choice_masks.h"
#include "sample/cuda/gpu_sampler.h"

namespace fathom::engine::cuda {

// Where logprobs() writes, for `rows` rows of at most kMaxTop tokens and `requested` ids.
struct DeviceLogprobs {
  static constexpr int64_t kRequested = 1024;  // the API's limit on token_ids_logprob

  float* token_logprobs = nullptr;      // [rows]
  int32_t* top_tokens = nullptr;        // [rows, top]
  float* top_logprobs = nullptr;        // [rows, top]
  float* requested_logprobs = nullptr;  // [rows, N]
  int32_t* ids = nullptr;               // [rows, N] the requested ids
  int32_t* tokens = nullptr;            // [rows]
  int32_t* rows = nullptr;              // [rows] logit rows of prompt positions

  static Result<DeviceLogprobs> allocate(int64_t rows, device::cuda::DeviceArena& arena);
};

// How many of the most likely tokens and of requested ids a call tells of: the most that any row wants.
struct LogprobShape {
  int32_t top = 0, requested = 0;
  void widen(const LogprobParams& params);
};

// A row that chose a token: its row in the plan, what is told about it, and who waits for it.
struct RowChoice {
  size_t row = 0;
  LogprobParams logprobs;
  ChoiceMasks masks;      // their sequence is to be told of the tokens
  int32_t drafts = 0;     // guesses of the row
  bool verifies = false;  // in a step with guesses, it goes on from the slot's last token
};

// Pinned memory for a step's answer, or a piece of a prompt's.
class StepOutput {
 public:
  static Result<StepOutput> allocate(int64_t rows);

  // Queue the copies. The second after logprobs() with this shape.
  void bring_tokens(device::cuda::Stream& stream, const int32_t* tokens, int64_t rows);
  void bring_logprobs(device::cuda::Stream& stream, const DeviceLogprobs& from, int64_t rows,
                      const LogprobShape& shape);

  // Once the copies are done.
  TokenOutput token(int64_t row) const;
  TokenOutput described(int64_t row, int32_t token, const LogprobParams& params) const;

  // Pinned room for the ids that a call asks about: [rows, kRequested], and two [rows].
  int32_t* ids() const { return ids_; }
  int32_t* row_ids() const { return row_ids_; }
  int32_t* row_tokens() const { return row_tokens_; }

 private:
  device::cuda::PinnedBuffer memory_;
  int32_t* tokens_ = nullptr;
  float* token_logprobs_ = nullptr;
  int32_t* top_tokens_ = nullptr;
  float* top_logprobs_ = nullptr;
  float* requested_logprobs_ = nullptr;
  int32_t *ids_ = nullptr, *row_ids_ = nullptr, *row_tokens_ = nullptr;
  LogprobShape shape_;
};

}  // namespace fathom::engine::cuda

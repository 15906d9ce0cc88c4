// How a request wants its tokens chosen, and what is told about each chosen token.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "core/thinking_budget.h"

namespace fathom {

// Validated by api before it reaches the engine; the ranges are the reference system's.
struct SamplingParams {
  float temperature = 1.0F;                           // >= 0; below 1e-6 the choice is greedy
  float top_p = 1.0F;                                 // (0, 1]
  int32_t top_k = -1;                                 // -1: all tokens
  float min_p = 0.0F;                                 // [0, 1], relative to the most likely token
  float repetition_penalty = 1.0F;                    // (0, 2], over prompt and output
  float frequency_penalty = 0.0F;                     // [-2, 2], over the output
  float presence_penalty = 0.0F;                      // [-2, 2], over the output
  std::vector<std::pair<int32_t, float>> logit_bias;  // token id, added to its logit; -inf: never chosen
  ThinkingBudget thinking;                            // comes before everything else

  int32_t max_new_tokens = 128;  // >= 0; 0 computes the prompt (and its logprobs) only
  int32_t min_new_tokens = 0;    // the stop ids below cannot be chosen before
  // A chosen token among these ends the request. Holds the model's EOS ids too, unless `ignore_eos`.
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;

  // Draw i of a request is a pure function of (seed, i). api picks a random seed where the client gave none.
  uint64_t seed = 0;

  bool greedy() const { return temperature < 1e-6F || top_k == 1; }
};

// Which log-probabilities to return: of the model's own distribution, before temperature, penalties and
// masks.
struct LogprobParams {
  bool output = false;             // of every chosen token
  int32_t top = 0;                 // the `top` most likely tokens at each reported position
  int32_t prompt_start = -1;       // first prompt position to report; -1: none. Position 0 has no logprob.
  std::vector<int32_t> token_ids;  // these tokens' logprobs at each reported position

  bool any() const { return output || prompt_start >= 0; }
};

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0.0F;  // natural log
};

// A token and what was asked to be told about its position. The logprob fields are filled on request only.
struct TokenOutput {
  int32_t token = 0;
  float logprob = 0.0F;
  std::vector<TokenLogprob> top;        // most likely first
  std::vector<TokenLogprob> requested;  // LogprobParams::token_ids, in their order
};

}  // namespace fathom

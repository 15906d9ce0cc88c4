// The seam between the wings: a batch of integers goes in, tokens come out.
//
// The executor keeps one slot of state for each running sequence: its block table, its sampling parameters
// and counts, and the last token chosen. The plan says only what changes, so a step's plan stays small, and a
// decode row needs no token from the scheduler: step n+1 can be planned and submitted while step n still
// runs.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "core/sampling.h"
#include "core/token_mask.h"

namespace fathom {

// What the scheduler must know of the model and the pool; fixed after start.
struct ExecutorLimits {
  int32_t max_slots = 0;    // sequences that can be live at once (--max-running-requests)
  int32_t num_pages = 0;    // pages of the KV pool, ids 0..num_pages-1, all usable
  int32_t page_size = 0;    // tokens a page
  int32_t max_context = 0;  // tokens of prompt and output together
  int32_t vocab_size = 0;
  int32_t max_step_tokens = 0;  // tokens of all rows of a step together (workspaces are sized for it)
  // Tokens that a decode row may try beyond its first (BatchRow::drafts); 0: no speculation.
  int32_t max_drafts = 0;
  // Drafts come of a layer of the model with KV entries of its own, which are complete for a position only
  // once the token after it is known and a further row of the slot has run: RowMode says up to where.
  bool draft_layer = false;
  // After a step with drafts the device waits for the next plan: worth so long without sleep (base/alert.h).
  // 0: sleep.
  std::chrono::milliseconds alert{0};
  // What attention to the tokens before a row of prompt tokens costs, up to so many tokens of the row: a
  // price for each pair of the two; beyond, or where this is 0, a price for each token before, however many
  // see it.
  int32_t prompt_pairs = 0;
  // Of prompts of so many tokens and more, those after the last whole page are rows of mode kDecode: a prompt
  // of which the cache has all other tokens then computes nothing for these. 0: no prompt's are.
  int32_t absorbed_tail = 0;

  // Where the tokens of mode kDecode begin: a function of the prompt alone, or they would depend on the cache
  // and on where the prompt was cut. What is shared is of whole pages.
  int32_t extend_end(int32_t prompt_len) const {
    const bool tail = absorbed_tail > 0 && prompt_len >= absorbed_tail;
    return tail ? prompt_len / page_size * page_size : prompt_len;
  }
  // Prompt tokens that a step has room for beside the decode rows of all slots.
  int32_t max_prompt_tokens() const { return max_step_tokens - max_slots * (1 + max_drafts); }
};

// What a row's tokens are, and so how its attention may be computed. The ways agree up to rounding; output
// tokens keep theirs, whatever is preempted and resumed.
//
// With ExecutorLimits::draft_layer, a row that names its tokens completes the draft's entries of all
// positions before its last one; one that does not, of those before its first.
enum class RowMode : uint8_t {
  kExtend,  // prompt tokens: un-absorbed attention over the prefix and the new tokens, or what costs less
  kDecode,  // output tokens, and a prompt's from extend_end on: absorbed attention over the latent cache
};

// Opens a slot for a sequence, new or resumed after a preemption.
struct SlotInit {
  SamplingParams sampling;
  LogprobParams logprobs;
  std::vector<int32_t> prompt;  // for penalties
  std::vector<int32_t>
      output;  // tokens already chosen (resumed sequences); restores counts and the draw index
  std::shared_ptr<const TokenMaskSource> mask = nullptr;  // null: any token may come
};

struct BatchRow {
  int32_t slot = 0;
  RowMode mode = RowMode::kDecode;
  int32_t start = 0;  // position of the row's first token: the tokens before it are in the cache
  // The row's tokens. Empty in mode kDecode: one token, the slot's last chosen one, perhaps of a step in
  // flight.
  std::vector<int32_t> tokens;
  std::vector<int32_t> new_pages;  // appended to the slot's block table before the step
  bool sample = false;             // choose a token after the row's last one
  // Of a row without tokens: the executor may guess so many tokens after the slot's last one, compute them in
  // the same step, and keep those that it would have chosen anyway. Needs new_pages for them; needs that no
  // other step of the slot is in flight, for nobody knows yet where the row will end.
  int32_t drafts = 0;
  // -1, or >= 1: report the prompt tokens at positions q with max(start + 1, prompt_logprob_start) <= q <=
  // start + num_tokens, each from the logits at q - 1; the last one only when next_prompt_token is given.
  int32_t prompt_logprob_start = -1;
  // The prompt token that follows the row's last one (a chunk border), or -1.
  int32_t next_prompt_token = -1;

  // At most, for a row with drafts.
  int32_t num_tokens() const { return tokens.empty() ? 1 + drafts : static_cast<int32_t>(tokens.size()); }
};

struct BatchPlan {
  uint64_t step = 0;  // counts up by one
  // Slots opened before the rows run; block_table holds the pages of the cached prefix.
  struct Open {
    int32_t slot = 0;
    SlotInit init;
    std::vector<int32_t> pages;
  };
  std::vector<Open> open;
  std::vector<BatchRow> rows;  // at most one a slot; never empty

  bool has_drafts() const {
    return std::any_of(rows.begin(), rows.end(), [](const BatchRow& row) { return row.drafts > 0; });
  }
};

struct RowResult {
  int32_t slot = 0;
  // One for a row that samples; up to 1 + drafts where it had drafts: the row then stands for that many
  // decode rows, and the positions of all outputs but the last are computed.
  std::vector<TokenOutput> outputs;
  int32_t drafted = 0;  // tokens that were guessed; outputs.size() - 1 of them were right
  std::vector<TokenOutput> prompt_logprobs;  // the row's reported prompt positions, in order
  std::optional<Error> error;                // the request cannot go on; others are not touched
};

struct StepResult {
  uint64_t step = 0;
  std::vector<RowResult> rows;  // in the plan's order, one a row
};

// Implemented by engine, called by sched from one thread. Steps run in the order of submission; several may
// be in flight. An error is a device fault: the executor is dead and every later step fails too.
class Executor {
 public:
  virtual ~Executor() = default;
  virtual const ExecutorLimits& limits() const = 0;
  virtual std::future<Result<StepResult>> step(BatchPlan plan) = 0;
};

}  // namespace fathom

// A request on its way through the scheduler, waiting or running.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/request.h"
#include "kv/kv_cache.h"

namespace fathom::sched {

struct Sequence {
  GenerateRequest request;
  std::shared_ptr<TokenStream> stream;
  uint64_t order = 0;          // of arrival
  uint64_t waiting_since = 0;  // step
  // While waiting: the running sequence that the prompt was last compared with, and the whole pages of tokens
  // that the two have in common.
  uint64_t compared_with = UINT64_MAX;
  int32_t compared_common = 0;
  int32_t prompt_len = 0;
  int32_t max_outputs = 0;  // max_new_tokens within the context and the pool

  std::vector<int32_t> tokens;               // the prompt, then the outputs accounted so far
  std::vector<TokenOutput> prompt_logprobs;  // until the first output goes out
  int32_t num_prompt_logprobs = 0;           // so far
  int32_t cached_tokens = 0;                 // prompt tokens found in the cache when first admitted
  int32_t counted_prompt = 0;                // prompt tokens in the statistics
  int32_t retractions = 0;
  SpeculationCounts speculation;
  bool admitted_before = false;
  std::optional<CacheMiss> cache_miss;  // until the first event

  // While running. The planned values are ahead of the accounted ones by the steps in flight.
  int32_t slot = -1;
  bool opened = false;  // the executor knows the slot
  kv::BlockTable table;
  int32_t planned_len = 0;      // positions in the cache once all planned steps are done
  int32_t computed_len = 0;     // positions in the cache now
  int32_t complete_len = 0;     // of them, those whose entries the draft layer, if there is one, has too
  int32_t planned_outputs = 0;  // outputs chosen once all planned steps are done
  int32_t in_flight = 0;        // rows in steps that are not accounted
  uint64_t last_step = 0;       // that it has a row in
  bool resumed = false;         // after a preemption, until the executor has chosen a token again
  bool ended = false;           // its last event is out; waits for rows in flight

  int32_t num_outputs() const { return static_cast<int32_t>(tokens.size()) - prompt_len; }
  bool running() const { return slot >= 0 && !ended; }
  // More to compute before a token can be chosen: the prompt, or outputs replayed after a preemption.
  bool in_prompt() const { return planned_len < prompt_len; }
  bool in_replay() const { return !in_prompt() && planned_len < prompt_len + num_outputs() - 1; }
  // The next row is one token; nothing is left to plan once the last output is on its way.
  bool can_decode() const {
    return !in_prompt() && !in_replay() && planned_outputs > 0 && planned_outputs < max_outputs;
  }
  // Tokens of the cache that may be used: what is left has to yield the logits asked for.
  int32_t match_limit() const {
    int32_t limit = static_cast<int32_t>(tokens.size()) - 1;
    int32_t next_logprob = next_prompt_logprob();
    if (next_logprob >= 0 && next_logprob < prompt_len) limit = std::min(limit, next_logprob - 1);
    return limit;
  }
  // The first prompt position whose logprob is wanted and not there yet; -1: none is wanted.
  int32_t next_prompt_logprob() const {
    if (request.logprobs.prompt_start < 0) return -1;
    return std::max(request.logprobs.prompt_start, 1) + num_prompt_logprobs;
  }
};

}  // namespace fathom::sched

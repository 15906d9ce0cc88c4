// How many KV pages a rank gets: a pure function of memory and flags, so that it can be tested and printed.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace fathom::engine {

struct PoolRequest {
  int64_t available_bytes = 0;   // before the weights are loaded
  int64_t weight_bytes = 0;      // weights and workspaces
  int64_t bytes_per_token = 0;   // of the cache, all layers
  int64_t page_size = 16;        // tokens
  int64_t max_context = 0;       // tokens
  int64_t max_running = 0;       // sequences
  double mem_fraction = 0.0;     // share of available_bytes for weights and pages; 0: kDefaultFraction
  int64_t max_total_tokens = 0;  // 0: no wish
};

struct PoolSize {
  int64_t pages = 0;
  int64_t bytes = 0;
  const char* bound = "";  // what decided: "memory", "--max-total-tokens" or "every sequence at full context"
};

inline constexpr double kDefaultFraction = 0.85;

// kUnavailable when not even one page fits; the message says what to lower.
Result<PoolSize> size_pool(const PoolRequest& request);

}  // namespace fathom::engine

// A pass of all ranks as bytes, for the ranks of other nodes. Integers little endian, lists after their
// counts.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "engine/rank_pass.h"

namespace fathom::engine {

// What a pass may name; nothing that parse_pass() gives is outside.
struct PassLimits {
  int groups = 1;
  int64_t vocab = 0, hidden = 0;
  int64_t max_tokens = 0, max_logit_rows = 0;  // of a group
  int64_t max_context = 0, page_size = 0, pages = 0;
};

std::string encode_pass(const WorldPass& pass);
// Takes any bytes: counts are checked against what is there, and every value against the limits.
Result<WorldPass> parse_pass(std::string_view bytes, const PassLimits& limits);

}  // namespace fathom::engine

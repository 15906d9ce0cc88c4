// How large and how many the parts of one request may be. Each has a flag of `fathom serve`; what is beyond a
// limit is refused with 400 and the limit's value.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fathom::api {

struct Limits {
  int32_t choices = 128;           // --max-choices: n
  int32_t batch = 4096;            // --max-batch: prompts x n of one request
  size_t messages = 16384;         // --max-messages
  size_t tools = 128;              // --max-tools
  size_t stops = 16;               // --max-stop-strings
  size_t stop_bytes = 1024;        // --max-stop-bytes, of each
  size_t logit_bias = 1024;        // --max-logit-bias, entries
  int json_depth = 64;             // --max-json-depth: of objects and lists in a body
  size_t json_keys = 4096;         // --max-json-keys: of one object
  size_t json_values = 4'000'000;  // --max-json-values: of a body
  size_t grammar_bytes =
      size_t{256} << 10;  // --max-grammar-bytes: of a schema, a regular expression, an EBNF
};

}  // namespace fathom::api

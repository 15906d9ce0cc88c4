// Any bytes as tokenizer.json: an error or a tokenizer that encodes and decodes, never a crash. The input may
// hold tokenizer_config.json after a zero byte.
#include <oniguruma.h>

#include <cstdlib>

#include "text/tokenizer/tokenizer.h"

// The regex engine's own limits, small, so that a hostile pattern does not take the fuzzer's time.
extern "C" int LLVMFuzzerInitialize(int*, char***) {
  onig_set_retry_limit_in_match(10000);
  onig_set_retry_limit_in_search(100000);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = input.find('\0');
  const std::string_view json = input.substr(0, zero);
  const std::string_view config = zero == std::string_view::npos ? "{}" : input.substr(zero + 1);
  const auto tokenizer = fathom::text::Tokenizer::from_json(json, config);
  if (!tokenizer.ok()) {
    if (tokenizer.error().message.empty()) std::abort();
    return 0;
  }
  const auto ids = (*tokenizer)->encode("Hello 世界 123 <s> \xFF", true);
  for (const int32_t id : ids) {
    if (id < 0) std::abort();
  }
  (*tokenizer)->decode(ids, true);
  return 0;
}

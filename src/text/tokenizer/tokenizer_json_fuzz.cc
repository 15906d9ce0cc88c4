// Any bytes as tokenizer.json: an error or a tokenizer that encodes and decodes, never a crash. The input may
// hold tokenizer_config.json after a zero byte.
#include <cstdlib>

#include "text/tokenizer/tokenizer.h"

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

#include "api/token_text.h"

#include <span>

namespace fathom::api {

TokenText::TokenText(const text::Tokenizer& tokenizer, const TextOptions& options)
    : detokenizer_(tokenizer, options.skip_special_tokens, options.kept_special_tokens),
      matcher_(options.stop, options.no_stop_trim) {}

std::string TokenText::add(int32_t token) {
  return matcher_.push(detokenizer_.push(std::span<const int32_t>(&token, 1)));
}

std::string TokenText::finish() {
  std::string rest = matcher_.push(detokenizer_.finish());
  rest += matcher_.finish();
  return rest;
}

std::string token_string(const text::Tokenizer& tokenizer, int32_t token) {
  return tokenizer.decode(std::span<const int32_t>(&token, 1), false);
}

nlohmann::ordered_json token_bytes_json(const text::Tokenizer& tokenizer, int32_t token) {
  nlohmann::ordered_json bytes = nlohmann::ordered_json::array();
  for (char byte : tokenizer.token_bytes(token)) bytes.push_back(static_cast<uint8_t>(byte));
  return bytes;
}

}  // namespace fathom::api

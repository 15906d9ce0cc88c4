// Splits a template into tokens, with white space control applied to its text (trim_blocks and lstrip_blocks
// on).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fathom::text::jinja {

enum class TokenKind : uint8_t {
  kData,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,  // `text` says which
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int line = 1;
  std::string text;  // of data, names, strings (escapes resolved) and operators
  int64_t integer = 0;
  double number = 0;

  bool is(TokenKind k, const char* t) const { return kind == k && text == t; }
  bool is_operator(const char* t) const { return is(TokenKind::kOperator, t); }
  bool is_name(const char* t) const { return is(TokenKind::kName, t); }
};

// Ends with a kEnd token. Throws Failure.
std::vector<Token> tokenize(std::string_view source);

}  // namespace fathom::text::jinja

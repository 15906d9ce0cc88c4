// UTF-8: validation, repair, and decoding of text known to be valid.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace fathom::text {

bool is_valid_utf8(std::string_view text);

// The text with every maximal ill-formed part replaced by U+FFFD, as Python's errors='replace' and the WHATWG
// decoder do: "\xe4\xbd" is one replacement character, "\xff\xff" is two.
std::string repair_utf8(std::string_view bytes);

// The number of bytes at the end of `bytes` (0 to 3) that are the start of a character whose rest may still
// come.
size_t incomplete_utf8_suffix(std::string_view bytes);

void append_utf8(char32_t code_point, std::string* out);

// The bytes of the character that starts with `lead`, a lead byte of valid UTF-8.
inline size_t utf8_length(char lead) {
  const auto byte = static_cast<uint8_t>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// The code point at `p`, where a character of valid UTF-8 starts; `length` is utf8_length(*p).
inline char32_t decode_utf8(const char* p, size_t length) {
  const auto at = [p](int i) { return static_cast<char32_t>(static_cast<uint8_t>(p[i])); };
  switch (length) {
    case 1:
      return at(0);
    case 2:
      return (at(0) & 0x1F) << 6 | (at(1) & 0x3F);
    case 3:
      return (at(0) & 0x0F) << 12 | (at(1) & 0x3F) << 6 | (at(2) & 0x3F);
    default:
      return (at(0) & 0x07) << 18 | (at(1) & 0x3F) << 12 | (at(2) & 0x3F) << 6 | (at(3) & 0x3F);
  }
}

}  // namespace fathom::text

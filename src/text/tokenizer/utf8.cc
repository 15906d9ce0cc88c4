#include "text/tokenizer/utf8.h"

#include <cstring>

namespace fathom::text {
namespace {

struct Scan {
  size_t length;  // bytes of the character, or of the maximal ill-formed part
  bool valid;
  bool truncated;  // ill-formed only because the text ends here
};

// What starts at bytes[pos] (Unicode 3.9, table 3-7).
Scan scan_character(std::string_view bytes, size_t pos) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t lead = at(pos);
  if (lead < 0x80) return {1, true, false};
  if (lead < 0xC2 || lead > 0xF4) return {1, false, false};
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  uint8_t low = 0x80;
  uint8_t high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (size_t i = 1; i < length; ++i) {
    if (pos + i == bytes.size()) return {i, false, true};
    if (at(pos + i) < low || at(pos + i) > high) return {i, false, false};
    low = 0x80;
    high = 0xBF;
  }
  return {length, true, false};
}

// The end of the longest valid prefix that starts at `pos`.
size_t valid_until(std::string_view bytes, size_t pos) {
  constexpr uint64_t kHighBits = 0x8080808080808080;
  while (pos < bytes.size()) {
    while (pos + 8 <= bytes.size()) {
      uint64_t word;
      std::memcpy(&word, bytes.data() + pos, 8);
      if (word & kHighBits) break;
      pos += 8;
    }
    if (pos == bytes.size()) break;
    const Scan scan = scan_character(bytes, pos);
    if (!scan.valid) break;
    pos += scan.length;
  }
  return pos;
}

}  // namespace

bool is_valid_utf8(std::string_view text) {
  return valid_until(text, 0) == text.size();
}

std::string repair_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  size_t pos = 0;
  while (pos < bytes.size()) {
    const size_t end = valid_until(bytes, pos);
    out.append(bytes.substr(pos, end - pos));
    pos = end;
    if (pos == bytes.size()) break;
    out += "\xEF\xBF\xBD";
    pos += scan_character(bytes, pos).length;
  }
  return out;
}

size_t incomplete_utf8_suffix(std::string_view bytes) {
  for (size_t back = 1; back <= 3 && back <= bytes.size(); ++back) {
    const auto byte = static_cast<uint8_t>(bytes[bytes.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;
    return scan_character(bytes, bytes.size() - back).truncated ? back : 0;
  }
  return 0;
}

void append_utf8(char32_t c, std::string* out) {
  const auto put = [out](char32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6);
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

}  // namespace fathom::text

// Random and adversarial Unicode for the tests of this folder.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "text/tokenizer/utf8.h"

namespace fathom::text {

// Characters at which the pre-tokenizers' rules meet: every class, both sides of every range they name.
inline const std::vector<char32_t>& edge_characters() {
  static const std::vector<char32_t> characters = {
      ' ',    ' ',    '\n',   '\r',    '\t',    0x0B,    0x0C,    0x1C,    0x00,    0x7F,    0x85,   0xA0,
      0xAD,   'a',    'Z',    'z',     'A',     '@',     '[',     '`',     '{',     '/',     ':',    '0',
      '9',    '\'',   '"',    '.',     '$',     '+',     '_',     '-',     0xAA,    0xB2,    0xB5,   0xBD,
      0xE9,   0x300,  0x345,  0x378,   0x660,   0x903,   0x1680,  0x180E,  0x2003,  0x200B,  0x200C, 0x200D,
      0x2028, 0x2029, 0x202F, 0x205F,  0x2014,  0x20AC,  0x2160,  0x2460,  0x24B6,  0x3000,  0x3001, 0x303F,
      0x3040, 0x3041, 0x3097, 0x3099,  0x309B,  0x309F,  0x30A0,  0x30FB,  0x30FF,  0x3100,  0x3400, 0x4DFF,
      0x4E00, 0x4E2D, 0x9FA5, 0x9FA6,  0x9FFF,  0xAC00,  0xD7FF,  0xE000,  0xFE0F,  0xFEFF,  0xFF01, 0xFF11,
      0xFF21, 0xFFFD, 0xFFFF, 0x10000, 0x1D7CE, 0x1F600, 0x1F3FB, 0x20000, 0xE0001, 0x10FFFF};
  return characters;
}

// `length` characters, most of them from a few edge characters so that rules meet often, the rest from
// anywhere.
inline std::string random_text(std::mt19937_64& random, size_t length) {
  const auto& edges = edge_characters();
  std::vector<char32_t> few;
  for (int i = 0; i < 6; ++i) few.push_back(edges[random() % edges.size()]);
  std::string text;
  while (length > 0) {
    char32_t c = few[random() % few.size()];
    const auto kind = random() % 16;
    if (kind == 0) c = edges[random() % edges.size()];
    if (kind == 1) c = static_cast<char32_t>(random() % 0x3100);
    if (kind == 2) c = static_cast<char32_t>(random() % 0x110000);
    if (c >= 0xD800 && c < 0xE000) continue;
    for (auto repeat = random() % 8 == 0 ? random() % 5 : 1; repeat > 0 && length > 0; --repeat, --length) {
      append_utf8(c, &text);
    }
  }
  return text;
}

}  // namespace fathom::text

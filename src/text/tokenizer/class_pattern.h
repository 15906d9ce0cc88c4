// Patterns of simple shapes, matched without the regex engine. DeepSeek-V2's splits are all of these shapes.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "text/tokenizer/unicode_class.h"
#include "text/tokenizer/utf8.h"

namespace fathom::text {

// One to so many characters of a class, with a space before them where the pattern takes one. Immutable;
// thread safe.
class ClassPattern {
 public:
  // The regexes  C  C+  C{1,n}  \s?C  \s?C+  where C is \p{L}, \p{M}, \p{N}, \p{P}, \p{S}, \s or a [class] of
  // those, characters and ranges. Nothing for any other regex.
  static std::optional<ClassPattern> parse(std::string_view regex);

  // One character of \p{N}: what the pre-tokenizer Digits splits by.
  static ClassPattern number();
  // One character of ASCII punctuation or \p{P}: what Punctuation splits by.
  static ClassPattern punctuation();

  // Calls match(begin, end), byte offsets, for each match in valid UTF-8, from left to right.
  template <class Match>
  void for_each_match(std::string_view text, Match&& match) const {
    for (size_t pos = 0; pos < text.size();) {
      const size_t length = utf8_length(text[pos]);
      const size_t begin = pos;
      const char32_t first = decode_utf8(text.data() + pos, length);
      pos += length;
      size_t end = begin;
      if (optional_space_ && (UnicodeClasses::get().of(first) & kSpace)) end = run_end(text, pos);
      if (end <= pos) end = run_end(text, begin);
      if (end == begin) continue;
      match(begin, end);
      pos = end;
    }
  }

 private:
  ClassPattern() : members_(0x110000) {}

  void add(char32_t first, char32_t last);
  void add_classes(CharClass classes);
  // Adds the class at the front of *rest and removes it; false if it is not one of those known.
  bool parse_class(std::string_view* rest);
  // The end of the longest match that starts at `pos` without a space; `pos` for none.
  size_t run_end(std::string_view text, size_t pos) const {
    for (uint32_t count = 0; count < most_ && pos < text.size(); ++count) {
      const size_t length = utf8_length(text[pos]);
      if (!members_[decode_utf8(text.data() + pos, length)]) break;
      pos += length;
    }
    return pos;
  }

  std::vector<bool> members_;  // by code point
  uint32_t most_ = 1;          // characters of one match
  bool optional_space_ = false;
};

// The regex \s+$: white space up to the end of a line or of the text.
class SpaceAtLineEnd {
 public:
  static constexpr std::string_view kRegex = R"(\s+$)";

  template <class Match>
  void for_each_match(std::string_view text, Match&& match) const {
    const auto& classes = UnicodeClasses::get();
    size_t pos = 0;
    while (pos < text.size()) {
      const size_t begin = pos;
      size_t line_break = begin;  // the last one in the run, after its first character
      while (pos < text.size()) {
        const size_t length = utf8_length(text[pos]);
        if (!(classes.of(decode_utf8(text.data() + pos, length)) & kSpace)) break;
        if (text[pos] == '\n') line_break = pos;
        pos += length;
      }
      const size_t end = pos == text.size() ? pos : line_break;
      if (end > begin) match(begin, end);
      if (pos < text.size()) pos += utf8_length(text[pos]);
    }
  }
};

}  // namespace fathom::text

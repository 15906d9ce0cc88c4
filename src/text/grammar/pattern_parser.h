// What the parsers of regular expressions and of EBNF share: a cursor over code points, classes, counts.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "text/grammar/pattern.h"

namespace fathom::text {

class PatternParser {
 protected:
  static constexpr int kMaxDepth = 64;  // of groups
  static constexpr int kMaxCounts = 8;  // on one item

  explicit PatternParser(std::string_view text);

  bool at_end() const { return position_ == text_.size(); }
  char32_t peek(size_t ahead = 0) const {
    return position_ + ahead < text_.size() ? text_[position_ + ahead] : 0;
  }
  char32_t take() { return text_[position_++]; }
  bool take_if(char32_t c) {
    if (at_end() || peek() != c) return false;
    ++position_;
    return true;
  }
  // Remembers the first error and ends the parse.
  void fail(std::string message);
  bool failed() const { return error_.has_value(); }

  // After '[': up to and with ']'.
  CodePoints take_class();
  // After a backslash. A class like \d is not `single`.
  CodePoints take_escape(bool* single);
  // *, +, ?, {m}, {m,}, {m,n} after an item, if any.
  void take_count(Pattern* item);

  std::optional<Error> error_;

 private:
  std::optional<char32_t> take_hex(int digits);
  std::optional<int> take_number();

  std::u32string text_;
  size_t position_ = 0;
};

}  // namespace fathom::text

#include "text/grammar/pattern_parser.h"

#include "text/tokenizer/utf8.h"

namespace fathom::text {
namespace {

const CodePoints kDigits = {{'0', '9'}};
const CodePoints kWord = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const CodePoints kSpace = {{9, 13},          {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680},
                           {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                           {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};

}  // namespace

PatternParser::PatternParser(std::string_view text) {
  const std::string valid = repair_utf8(text);
  for (size_t i = 0; i < valid.size();) {
    const size_t length = utf8_length(valid[i]);
    text_ += decode_utf8(valid.data() + i, length);
    i += length;
  }
}

void PatternParser::fail(std::string message) {
  if (!error_) error_ = error(ErrorCode::kInvalidArgument, "at character {}: {}", position_, message);
  position_ = text_.size();
}

std::optional<char32_t> PatternParser::take_hex(int digits) {
  char32_t value = 0;
  for (int i = 0; i < digits; ++i) {
    const char32_t c = at_end() ? 0 : take();
    if (c >= '0' && c <= '9') {
      value = value * 16 + (c - '0');
    } else if ((c | 32) >= 'a' && (c | 32) <= 'f') {
      value = value * 16 + ((c | 32) - 'a' + 10);
    } else {
      fail("expected a hexadecimal digit");
      return std::nullopt;
    }
  }
  return value;
}

CodePoints PatternParser::take_escape(bool* single) {
  *single = true;
  if (at_end()) {
    fail("nothing after the backslash");
    return {};
  }
  const char32_t c = take();
  switch (c) {
    case 'd':
    case 'D':
    case 'w':
    case 'W':
    case 's':
    case 'S': {
      *single = false;
      const CodePoints& set = (c | 32) == 'd' ? kDigits : (c | 32) == 'w' ? kWord : kSpace;
      return c >= 'a' ? set : complement(set);
    }
    case 't':
      return {{'\t', '\t'}};
    case 'n':
      return {{'\n', '\n'}};
    case 'r':
      return {{'\r', '\r'}};
    case 'f':
      return {{'\f', '\f'}};
    case 'v':
      return {{'\v', '\v'}};
    case 'x':
    case 'u':
    case 'U': {
      std::optional<char32_t> value;
      if (c == 'u' && take_if('{')) {
        value = 0;
        while (!at_end() && peek() != '}' && *value <= 0x10FFFF) {
          const std::optional<char32_t> digit = take_hex(1);
          if (!digit) return {};
          *value = *value * 16 + *digit;
        }
        if (!take_if('}')) fail("expected } after \\u{");
      } else {
        value = take_hex(c == 'x' ? 2 : c == 'u' ? 4 : 8);
      }
      if (!value) return {};
      if (*value > 0x10FFFF || (*value >= 0xD800 && *value <= 0xDFFF)) {
        fail("no character has this number");
        return {};
      }
      return {{*value, *value}};
    }
    default:
      break;
  }
  const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  if (c == '0' && !(peek() >= '0' && peek() <= '9')) return {{0, 0}};
  if (letter) {
    std::string name;
    append_utf8(c, &name);
    fail("\\" + name + " is not available");
    return {};
  }
  return {{c, c}};
}

CodePoints PatternParser::take_class() {
  const bool negated = take_if('^');
  CodePoints set;
  for (bool first = true;; first = false) {
    if (at_end()) {
      fail("the class [ has no ]");
      return {};
    }
    if (!first && take_if(']')) break;
    if (first && take_if(']')) break;  // [] and [^]: nothing and everything
    bool single = true;
    CodePoints item;
    if (take_if('\\')) {
      // In a class \b is the backspace.
      if (take_if('b')) {
        item = {{8, 8}};
      } else {
        item = take_escape(&single);
      }
    } else {
      const char32_t c = take();
      item = {{c, c}};
    }
    if (failed()) return {};
    if (single && peek() == '-' && peek(1) != ']' && peek(1) != 0) {
      take();
      bool end_single = true;
      CodePoints last;
      if (take_if('\\')) {
        last = take_escape(&end_single);
      } else {
        const char32_t c = take();
        last = {{c, c}};
      }
      if (failed()) return {};
      if (!end_single || last[0].first < item[0].first) {
        fail("a range of the class ends before it begins");
        return {};
      }
      item[0].second = last[0].first;
    }
    set.insert(set.end(), item.begin(), item.end());
  }
  set = normalize(std::move(set));
  return negated ? complement(set) : set;
}

std::optional<int> PatternParser::take_number() {
  if (!(peek() >= '0' && peek() <= '9')) return std::nullopt;
  int value = 0;
  while (peek() >= '0' && peek() <= '9') {
    value = value * 10 + static_cast<int>(take() - '0');
    if (value > GrammarBuilder::kMaxRepeats) {
      fail(fmt::format("more than {} repetitions", GrammarBuilder::kMaxRepeats));
      return std::nullopt;
    }
  }
  return value;
}

void PatternParser::take_count(Pattern* item) {
  for (int nested = 0; !failed(); ++nested) {
    int min = 0;
    int max = -1;
    if (take_if('*')) {
    } else if (take_if('+')) {
      min = 1;
    } else if (take_if('?')) {
      max = 1;
    } else if (peek() == '{' && ((peek(1) >= '0' && peek(1) <= '9') || peek(1) == ',')) {
      take();
      const std::optional<int> low = take_number();
      min = low.value_or(0);
      max = min;
      if (take_if(',')) {
        const std::optional<int> high = take_number();
        max = high ? *high : -1;
      }
      if (!take_if('}')) return fail("expected } after the count");
      if (max >= 0 && max < min) return fail("the count's maximum is below its minimum");
    } else {
      return;
    }
    if (nested == kMaxCounts) return fail("counts of counts are nested too deeply");
    take_if('?');  // lazy: the same texts
    Pattern repeat;
    repeat.kind = Pattern::Kind::kRepeat;
    repeat.min = min;
    repeat.max = max;
    repeat.children.push_back(std::move(*item));
    *item = std::move(repeat);
  }
}

}  // namespace fathom::text

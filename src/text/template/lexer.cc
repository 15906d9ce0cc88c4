#include "text/template/lexer.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>

#include "text/template/failure.h"
#include "text/template/unicode.h"

namespace fathom::text::jinja {
namespace {

bool is_digit_char(char c) {
  return c >= '0' && c <= '9';
}

// Every line end is one "\n", and one at the very end is dropped.
std::string normalize_lines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalize_lines(source)), text_(source_) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) root();
    push(TokenKind::kEnd);
    return std::move(tokens_);
  }

 private:
  bool starts(std::string_view what) const { return text_.substr(at_).starts_with(what); }
  char peek(size_t offset = 0) const { return at_ + offset < text_.size() ? text_[at_ + offset] : '\0'; }

  Token& push(TokenKind kind, std::string text = {}) {
    tokens_.push_back({.kind = kind, .line = line_, .text = std::move(text)});
    return tokens_.back();
  }

  void advance(size_t count) {
    const auto piece = text_.substr(at_, count);
    line_ += static_cast<int>(std::count(piece.begin(), piece.end(), '\n'));
    at_ += piece.size();
    if (!piece.empty()) at_line_start_ = piece.back() == '\n';
  }
  size_t spaces_at(size_t at) const { return text_.size() - at - strip_left(text_.substr(at)).size(); }

  // Text up to the next tag, then the tag's beginning.
  void root() {
    size_t tag = at_;
    for (;; ++tag) {
      tag = text_.find('{', tag);
      if (tag == text_.npos || tag + 1 >= text_.size()) {
        push(TokenKind::kData, std::string(text_.substr(at_)));
        advance(text_.size() - at_);
        return;
      }
      if (text_[tag + 1] == '%' || text_[tag + 1] == '{' || text_[tag + 1] == '#') break;
    }
    const char type = text_[tag + 1];
    const char sign =
        tag + 2 < text_.size() && (text_[tag + 2] == '-' || text_[tag + 2] == '+') ? text_[tag + 2] : 0;
    data(tag, sign, type != '{');
    if (type == '%' && raw_begins(sign)) return;
    advance(sign != 0 ? 3 : 2);
    if (type == '#') {
      comment();
    } else {
      push(type == '%' ? TokenKind::kBlockBegin : TokenKind::kVariableBegin);
      code(type == '%');
    }
  }

  // The text before a tag, stripped as the tag's sign and lstrip_blocks say.
  void data(size_t tag, char sign, bool lstrip) {
    std::string_view piece = text_.substr(at_, tag - at_);
    if (sign == '-') {
      piece = strip_right(piece);
    } else if (sign != '+' && lstrip) {
      const size_t line = piece.rfind('\n') + 1;
      if ((line > 0 || at_line_start_) && line < piece.size() && strip_left(piece.substr(line)).empty()) {
        piece = piece.substr(0, line);
      }
    }
    if (!piece.empty()) push(TokenKind::kData, std::string(piece));
    advance(tag - at_);
  }

  // At "{%": is it {% raw %}? If so, takes all of it up to {% endraw %}.
  bool raw_begins(char sign) {
    size_t at = at_ + (sign != 0 ? 3 : 2);
    at += spaces_at(at);
    if (!text_.substr(at).starts_with("raw")) return false;
    at += 3;
    at += spaces_at(at);
    if (text_.substr(at).starts_with("-%}")) {
      at += 3;
      at += spaces_at(at);
    } else if (text_.substr(at).starts_with("%}")) {
      at += 2;
    } else {
      return false;
    }
    advance(at - at_);
    raw();
    return true;
  }

  void raw() {
    if (at_ >= text_.size()) return;
    for (size_t tag = text_.find("{%", at_); tag != text_.npos; tag = text_.find("{%", tag + 1)) {
      const char sign =
          tag + 2 < text_.size() && (text_[tag + 2] == '-' || text_[tag + 2] == '+') ? text_[tag + 2] : 0;
      size_t at = tag + (sign != 0 ? 3 : 2);
      at += spaces_at(at);
      if (!text_.substr(at).starts_with("endraw")) continue;
      at += 6;
      at += spaces_at(at);
      const size_t size = end_size(at, "%}");
      if (size == 0) continue;
      data(tag, sign, true);
      advance(at + size - at_);
      return;
    }
    fail_at(line_, "Missing end of raw directive");
  }

  void comment() {
    if (at_ >= text_.size()) return;
    const size_t end = text_.find("#}", at_);
    if (end == text_.npos) fail_at(line_, "Missing end of comment tag");
    const bool has_sign = end > at_ && (text_[end - 1] == '-' || text_[end - 1] == '+');
    const size_t start = has_sign ? end - 1 : end;
    advance(start + end_size(start, "#}") - at_);
  }

  // Size of a closing tag at `at` with what its sign or trim_blocks takes after it; 0 when there is none.
  size_t end_size(size_t at, std::string_view close) const {
    const std::string_view rest = text_.substr(at);
    if (rest.starts_with("+") && rest.substr(1).starts_with(close)) return 1 + close.size();
    if (rest.starts_with("-") && rest.substr(1).starts_with(close)) {
      return 1 + close.size() + spaces_at(at + 1 + close.size());
    }
    if (!rest.starts_with(close)) return 0;
    return close.size() + (rest.substr(close.size()).starts_with("\n") ? 1 : 0);
  }

  // The inside of {% %} or {{ }}, its end included.
  void code(bool block) {
    std::string open;
    while (at_ < text_.size()) {
      if (open.empty()) {
        size_t size = 0;
        if (block) {
          size = end_size(at_, "%}");
        } else if (starts("}}")) {
          size = 2;
        } else if (starts("-}}")) {
          size = 3 + spaces_at(at_ + 3);
        }
        if (size > 0) {
          push(block ? TokenKind::kBlockEnd : TokenKind::kVariableEnd);
          advance(size);
          return;
        }
      }
      if (const size_t spaces = spaces_at(at_); spaces > 0) {
        advance(spaces);
      } else if (!number() && !name() && !string()) {
        op(open);
      }
    }
  }

  // Digits that single underscores may part, from `at`; their end, or `at` when there are none.
  template <class IsDigit>
  size_t digits_from(size_t at, IsDigit is_digit) const {
    size_t end = at;
    while (end < text_.size()) {
      if (is_digit(text_[end])) {
        ++end;
      } else if (text_[end] == '_' && end > at && end + 1 < text_.size() && is_digit(text_[end + 1])) {
        ++end;
      } else {
        break;
      }
    }
    return end;
  }

  std::string without_underscores(size_t end) const {
    std::string digits(text_.substr(at_, end - at_));
    std::erase(digits, '_');
    return digits;
  }

  size_t float_end() const {
    if (at_ > 0 && text_[at_ - 1] == '.') return at_;
    size_t end = digits_from(at_, is_digit_char);
    bool is_float = false;
    if (end < text_.size() && text_[end] == '.') {
      const size_t fraction = digits_from(end + 1, is_digit_char);
      if (fraction > end + 1) {
        end = fraction;
        is_float = true;
      }
    }
    if (end < text_.size() && (text_[end] == 'e' || text_[end] == 'E')) {
      size_t start = end + 1;
      if (start < text_.size() && (text_[start] == '+' || text_[start] == '-')) ++start;
      const size_t exponent = digits_from(start, is_digit_char);
      if (exponent > start) {
        end = exponent;
        is_float = true;
      }
    }
    return is_float ? end : at_;
  }

  bool number() {
    if (!is_digit_char(peek())) return false;
    if (const size_t end = float_end(); end > at_) {
      push(TokenKind::kFloat).number = std::strtod(without_underscores(end).c_str(), nullptr);
      advance(end - at_);
      return true;
    }
    int base = 10;
    const char mark = static_cast<char>(peek(1) | 0x20);
    if (peek() == '0' && (mark == 'b' || mark == 'o' || mark == 'x'))
      base = mark == 'b' ? 2 : mark == 'o' ? 8 : 16;
    const auto is_digit = [base](char c) {
      if (base == 16) return std::isxdigit(static_cast<unsigned char>(c)) != 0;
      return c >= '0' && c < '0' + base;
    };
    size_t end = at_;
    if (base != 10) {
      const size_t start = at_ + 2 + (peek(2) == '_' ? 1 : 0);
      end = digits_from(start, is_digit);
      if (end == start) base = 10;
    }
    if (base == 10) {
      // A leading zero stands alone or before other zeros.
      end =
          peek() == '0' ? digits_from(at_, [](char c) { return c == '0'; }) : digits_from(at_, is_digit_char);
    }
    const std::string digits = without_underscores(end).substr(base == 10 ? 0 : 2);
    int64_t value = 0;
    if (std::from_chars(digits.data(), digits.data() + digits.size(), value, base).ec != std::errc()) {
      fail_at(line_, "the integer {} is beyond 64 bits", digits);
    }
    push(TokenKind::kInteger).integer = value;
    advance(end - at_);
    return true;
  }

  bool name() {
    size_t end = at_;
    size_t next = at_;
    if (!is_identifier_start(next_code_point(text_, next))) return false;
    while (next <= text_.size()) {
      end = next;
      if (next == text_.size() || !is_identifier_part(next_code_point(text_, next))) break;
    }
    push(TokenKind::kName, std::string(text_.substr(at_, end - at_)));
    advance(end - at_);
    return true;
  }

  bool string() {
    const char quote = peek();
    if (quote != '\'' && quote != '"') return false;
    size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != quote) end += text_[end] == '\\' ? 2 : 1;
    if (end >= text_.size()) return false;
    push(TokenKind::kString, unescape(text_.substr(at_ + 1, end - at_ - 1)));
    advance(end + 1 - at_);
    return true;
  }

  std::string unescape(std::string_view raw) const {
    std::string out;
    for (size_t at = 0; at < raw.size();) {
      if (raw[at] != '\\') {
        out += raw[at++];
        continue;
      }
      ++at;
      const char c = raw[at];
      constexpr std::string_view kSimple = "\\\\''\"\"a\ab\bf\fn\nr\rt\tv\v";
      size_t simple = 0;
      while (simple < kSimple.size() && kSimple[simple] != c) simple += 2;
      if (simple < kSimple.size()) {
        out += kSimple[simple + 1];
        ++at;
      } else if (c == '\n') {
        ++at;
      } else if (c >= '0' && c <= '7') {
        uint32_t code = 0;
        for (int i = 0; i < 3 && at < raw.size() && raw[at] >= '0' && raw[at] <= '7'; ++i) {
          code = code * 8 + static_cast<uint32_t>(raw[at++] - '0');
        }
        append_code_point(out, code);
      } else if (c == 'x' || c == 'u' || c == 'U') {
        append_code_point(out, hex_escape(raw, at));
      } else if (c == 'N') {
        fail_at(line_, "named characters (\\N) are not supported in strings");
      } else if (static_cast<unsigned char>(c) >= 0x80) {
        // Jinja spells such a character as an escape before it reads the escapes.
        const uint32_t code = next_code_point(raw, at);
        out += code < 0x100     ? fmt::format("\\x{:02x}", code)
               : code < 0x10000 ? fmt::format("\\u{:04x}", code)
                                : fmt::format("\\U{:08x}", code);
      } else {
        out += '\\';
        out += c;
        ++at;
      }
    }
    return out;
  }

  uint32_t hex_escape(std::string_view raw, size_t& at) const {
    const size_t count = raw[at] == 'x' ? 2 : raw[at] == 'u' ? 4 : 8;
    ++at;
    uint32_t code = 0;
    for (size_t i = 0; i < count; ++i, ++at) {
      if (at >= raw.size() || std::isxdigit(static_cast<unsigned char>(raw[at])) == 0) {
        fail_at(line_, "truncated hexadecimal escape in a string");
      }
      const char c = raw[at];
      code = code * 16 + static_cast<uint32_t>(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    if (code > 0x10FFFF) fail_at(line_, "illegal Unicode character in a string");
    if (code >= 0xD800 && code < 0xE000) fail_at(line_, "half of a surrogate pair in a string");
    return code;
  }

  void op(std::string& open) {
    constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                               "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                               ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    for (const std::string_view candidate : kOperators) {
      if (!starts(candidate)) continue;
      const char c = candidate[0];
      if (c == '(' || c == '[' || c == '{') {
        open += c == '(' ? ')' : c == '[' ? ']' : '}';
      } else if (c == ')' || c == ']' || c == '}') {
        if (open.empty()) fail_at(line_, "unexpected '{}'", c);
        if (open.back() != c) fail_at(line_, "unexpected '{}', expected '{}'", c, open.back());
        open.pop_back();
      }
      push(TokenKind::kOperator, std::string(candidate));
      advance(candidate.size());
      return;
    }
    size_t next = at_;
    next_code_point(text_, next);
    fail_at(line_, "unexpected char '{}' at {}", text_.substr(at_, next - at_), at_);
  }

  std::string source_;
  std::string_view text_;
  size_t at_ = 0;
  int line_ = 1;
  bool at_line_start_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(source).run();
}

}  // namespace fathom::text::jinja

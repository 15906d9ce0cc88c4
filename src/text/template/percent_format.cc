#include <cmath>

#include "text/template/formatting.h"
#include "text/template/operators.h"
#include "text/template/printing.h"
#include "text/template/unicode.h"

namespace fathom::text::jinja {
namespace {

constexpr int kMaxPrecision = 1000;

uint64_t magnitude_of(int64_t number) {
  return number < 0 ? 0 - static_cast<uint64_t>(number) : static_cast<uint64_t>(number);
}

class PercentFormatter {
 public:
  PercentFormatter(Heap& heap, std::string_view text, const Value& values)
      : heap_(heap), text_(text), values_(values) {
    mapping_ =
        values.is(Kind::kDict) || values.is(Kind::kList) || values.is(Kind::kRange) || values.is_undefined();
  }

  std::string run() {
    while (at_ < text_.size()) {
      const size_t percent = std::min(text_.find('%', at_), text_.size());
      out_ += text_.substr(at_, percent - at_);
      at_ = percent;
      if (at_ < text_.size()) {
        ++at_;
        conversion();
      }
      heap_.check_text(out_.size());
    }
    const bool unused = values_.is(Kind::kTuple) ? next_ < values_.items().size() : next_ == 0;
    if (unused && !mapping_) fail("not all arguments converted during string formatting");
    return std::move(out_);
  }

 private:
  char peek() const {
    if (at_ >= text_.size()) fail("incomplete format");
    return text_[at_];
  }

  Value next_value() {
    if (values_.is(Kind::kTuple)) {
      if (next_ >= values_.items().size()) fail("not enough arguments for format string");
      return values_.items()[next_++];
    }
    if (next_++ > 0) fail("not enough arguments for format string");
    return values_;
  }

  int64_t number_or_star() {
    if (peek() == '*') {
      ++at_;
      const Value value = next_value();
      if (!value.is_integral()) fail("* wants int");
      return value.as_int();
    }
    int64_t number = 0;
    while (peek() >= '0' && peek() <= '9') {
      number = number * 10 + (text_[at_++] - '0');
      heap_.check_text(static_cast<size_t>(number));
    }
    return number;
  }

  void conversion() {
    bool left = false, plus = false, blank = false, alternate = false, zero = false;
    Value named;
    if (peek() == '(') {
      if (!mapping_) fail("format requires a mapping");
      int depth = 1;
      const size_t start = ++at_;
      for (; depth > 0; ++at_) {
        if (at_ >= text_.size()) fail("incomplete format key");
        depth += text_[at_] == '(' ? 1 : text_[at_] == ')' ? -1 : 0;
      }
      if (!values_.is(Kind::kDict)) fail("list indices must be integers or slices, not str");
      const Value* found = values_.as<DictObject>().find(text_.substr(start, at_ - 1 - start));
      if (found == nullptr) fail("KeyError: '{}'", text_.substr(start, at_ - 1 - start));
      named = *found;
    }
    for (;; ++at_) {
      const char c = peek();
      if (c == '-') {
        left = true;
      } else if (c == '+') {
        plus = true;
      } else if (c == ' ') {
        blank = true;
      } else if (c == '#') {
        alternate = true;
      } else if (c == '0') {
        zero = true;
      } else {
        break;
      }
    }
    int64_t width = number_or_star();
    if (width < 0) {
      left = true;
      width = width == INT64_MIN ? INT64_MAX : -width;
    }
    int64_t precision = -1;
    if (peek() == '.') {
      ++at_;
      precision = std::max<int64_t>(number_or_star(), 0);
    }
    if (peek() == 'h' || peek() == 'l' || peek() == 'L') ++at_;
    const char type = peek();
    ++at_;
    if (type == '%') {
      out_ += '%';
      return;
    }
    const Value value = named.is_missing() ? next_value() : named;
    std::string sign;
    std::string body;
    bool numeric = true;
    const auto signed_prefix = [&](bool negative) { return negative ? "-" : plus ? "+" : blank ? " " : ""; };
    switch (type) {
      case 's':
      case 'r':
      case 'a': {
        body = type == 's' ? str(heap_, value) : repr(heap_, value);
        if (precision >= 0) body.resize(offset_of(body, precision));
        numeric = false;
        break;
      }
      case 'c':
        if (value.is_integral() && value.as_int() >= 0 && value.as_int() < 0x110000) {
          append_code_point(body, static_cast<uint32_t>(value.as_int()));
        } else if (value.is_string() && value.as<StringObject>().length == 1) {
          body = value.text();
        } else {
          fail("%c requires int or char");
        }
        numeric = false;
        break;
      case 'd':
      case 'i':
      case 'u':
      case 'o':
      case 'x':
      case 'X': {
        int64_t number = 0;
        if (value.is_integral()) {
          number = value.as_int();
        } else if (value.is(Kind::kFloat) && (type == 'd' || type == 'i' || type == 'u')) {
          if (!(std::abs(value.as_float()) < 0x1p63)) fail("the number is beyond 64-bit integers");
          number = static_cast<int64_t>(value.as_float());
        } else {
          fail("%{} format: a number is required, not {}", type, type_name(value));
        }
        const int base = type == 'o' ? 8 : type == 'x' || type == 'X' ? 16 : 10;
        body = integer_digits(magnitude_of(number), base, type == 'X');
        if (precision > kMaxPrecision) fail("the precision {} is too large", precision);
        if (precision > static_cast<int64_t>(body.size())) {
          body.insert(0, static_cast<size_t>(precision) - body.size(), '0');
        }
        sign = signed_prefix(number < 0);
        if (alternate && base == 8) sign += "0o";
        if (alternate && base == 16) sign += type == 'X' ? "0X" : "0x";
        break;
      }
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G': {
        double number = 0;
        if (!to_double(value, number)) fail("must be real number, not {}", type_name(value));
        if (precision > kMaxPrecision) fail("the precision {} is too large", precision);
        body =
            float_digits(std::abs(number), type, precision < 0 ? 6 : static_cast<int>(precision), alternate);
        sign = signed_prefix(std::signbit(number) && !std::isnan(number));
        break;
      }
      default:
        fail("unsupported format character '{}'", type);
    }
    const auto length = static_cast<int64_t>(code_points(sign + body).size());
    if (numeric && zero && !left && width > length) {
      heap_.check_text(static_cast<size_t>(width));
      body.insert(0, static_cast<size_t>(width - length), '0');
    }
    out_ += pad_text(heap_, sign + body, width, left ? '<' : '>', " ");
  }

  Heap& heap_;
  std::string_view text_;
  const Value& values_;
  bool mapping_;
  size_t at_ = 0;
  size_t next_ = 0;
  std::string out_;
};

}  // namespace

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string integer_digits(uint64_t magnitude, int base, bool capitals) {
  std::string digits;
  do {
    const auto digit = static_cast<char>(magnitude % static_cast<uint64_t>(base));
    digits.insert(digits.begin(),
                  static_cast<char>(digit < 10 ? '0' + digit : (capitals ? 'A' : 'a') + digit - 10));
    magnitude /= static_cast<uint64_t>(base);
  } while (magnitude > 0);
  return digits;
}

std::string float_digits(double magnitude, char type, int precision, bool alternate) {
  const bool capitals = type >= 'A' && type <= 'Z';
  if (std::isnan(magnitude)) return capitals ? "NAN" : "nan";
  if (std::isinf(magnitude)) return capitals ? "INF" : "inf";
  const std::string pattern = std::string("%") + (alternate ? "#" : "") + ".*" + type;
  const int size = std::snprintf(nullptr, 0, pattern.c_str(), precision, magnitude);
  std::string out(static_cast<size_t>(size) + 1, '\0');
  std::snprintf(out.data(), out.size(), pattern.c_str(), precision, magnitude);
  out.pop_back();
  return out;
}

std::string pad_text(Heap& heap, std::string text, int64_t width, char align, std::string_view fill) {
  const auto length = static_cast<int64_t>(code_points(text).size());
  if (width <= length) return text;
  const auto missing = static_cast<size_t>(width - length);
  heap.check_text(missing);
  heap.check_text(missing * fill.size() + text.size());
  heap.step_bytes(missing);
  const size_t before = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
  std::string out;
  for (size_t i = 0; i < before; ++i) out += fill;
  out += text;
  for (size_t i = before; i < missing; ++i) out += fill;
  return out;
}

Value percent_format(Heap& heap, const Value& text, const Value& values) {
  const bool markup = text.as<StringObject>().markup;
  if (markup) fail("formatting of escaped text with % is not supported");
  return heap.string(PercentFormatter(heap, text.text(), values).run());
}

}  // namespace fathom::text::jinja

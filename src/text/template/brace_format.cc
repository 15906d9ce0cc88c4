// str.format and format specifications.
#include <cmath>

#include "text/template/formatting.h"
#include "text/template/interpreter.h"
#include "text/template/operators.h"
#include "text/template/printing.h"
#include "text/template/unicode.h"

namespace fathom::text::jinja {
namespace {

constexpr int kMaxPrecision = 1000;

struct Spec {
  std::string fill = " ";
  char align = 0;
  char sign = '-';
  bool alternate = false;
  bool zero = false;
  int64_t width = 0;
  char grouping = 0;
  int precision = -1;
  char type = 0;
};

bool is_align(char c) {
  return c == '<' || c == '>' || c == '^' || c == '=';
}

Spec parse_spec(Heap& heap, std::string_view text) {
  Spec spec;
  size_t at = 0;
  const auto peek = [&](size_t i) { return i < text.size() ? text[i] : '\0'; };
  const auto number = [&] {
    int64_t value = 0;
    while (peek(at) >= '0' && peek(at) <= '9') {
      value = value * 10 + (text[at++] - '0');
      heap.check_text(static_cast<size_t>(value));
    }
    return value;
  };
  const size_t first = text.empty() ? 0 : code_point_size(text, 0);
  bool filled = false;
  if (first > 0 && is_align(peek(first))) {
    spec.fill = text.substr(0, first);
    spec.align = text[first];
    at = first + 1;
    filled = true;
  } else if (is_align(peek(0))) {
    spec.align = text[at++];
  }
  if (peek(at) == '+' || peek(at) == '-' || peek(at) == ' ') spec.sign = text[at++];
  if (peek(at) == '#') {
    spec.alternate = true;
    ++at;
  }
  if (peek(at) == '0' && !filled) {
    spec.zero = true;
    spec.fill = "0";
    ++at;
  }
  spec.width = number();
  if (peek(at) == ',' || peek(at) == '_') spec.grouping = text[at++];
  if (peek(at) == '.') {
    ++at;
    if (peek(at) < '0' || peek(at) > '9') fail("Format specifier missing precision");
    const int64_t precision = number();
    if (precision > kMaxPrecision) fail("the precision {} is too large", precision);
    spec.precision = static_cast<int>(precision);
  }
  if (at < text.size()) spec.type = text[at++];
  if (at < text.size()) fail("Invalid format specifier");
  return spec;
}

std::string group_digits(const std::string& digits, char separator, size_t every) {
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % every == 0) out += separator;
    out += digits[i];
  }
  return out;
}

std::string finish_number(Heap& heap, const Spec& spec, bool negative, const std::string& prefix,
                          std::string body) {
  const std::string sign = negative ? "-" : spec.sign == '+' ? "+" : spec.sign == ' ' ? " " : "";
  const char align = spec.align != 0 ? spec.align : spec.zero ? '=' : '>';
  if (align == '=') {
    if (spec.zero && spec.grouping != 0) fail("zero padding with a thousands separator is not supported");
    const auto used = static_cast<int64_t>(sign.size() + prefix.size());
    return sign + prefix + pad_text(heap, std::move(body), spec.width - used, '>', spec.fill);
  }
  return pad_text(heap, sign + prefix + body, spec.width, align, spec.fill);
}

std::string format_integer(Heap& heap, int64_t number, const Spec& spec) {
  if (spec.precision >= 0) fail("Precision not allowed in integer format specifier");
  const uint64_t magnitude = number < 0 ? 0 - static_cast<uint64_t>(number) : static_cast<uint64_t>(number);
  std::string body;
  std::string prefix;
  size_t every = 3;
  switch (spec.type) {
    case 0:
    case 'd':
    case 'n':
      body = integer_digits(magnitude, 10, false);
      break;
    case 'b':
      body = integer_digits(magnitude, 2, false);
      prefix = "0b";
      every = 4;
      break;
    case 'o':
      body = integer_digits(magnitude, 8, false);
      prefix = "0o";
      every = 4;
      break;
    case 'x':
    case 'X':
      body = integer_digits(magnitude, 16, spec.type == 'X');
      prefix = spec.type == 'X' ? "0X" : "0x";
      every = 4;
      break;
    case 'c':
      if (number < 0 || number > 0x10FFFF) fail("%c arg not in range(0x110000)");
      append_code_point(body, static_cast<uint32_t>(number));
      break;
    default:
      fail("Unknown format code '{}' for object of type 'int'", spec.type);
  }
  if (every == 4 && spec.grouping == ',') fail("Cannot specify ',' with '{}'.", spec.type);
  if (spec.grouping != 0) body = group_digits(body, spec.grouping, every);
  return finish_number(heap, spec, number < 0, spec.alternate ? prefix : "", body);
}

// Without a type a precision counts significant digits, and one digit behind the point is kept.
std::string general_digits(double magnitude, int precision) {
  precision = std::max(precision, 1);
  const std::string scientific = float_digits(magnitude, 'e', precision - 1, false);
  const int exponent = std::atoi(scientific.c_str() + scientific.find('e') + 1);
  if (exponent < -4 || exponent >= precision - 1) {
    std::string mantissa = scientific.substr(0, scientific.find('e'));
    if (mantissa.find('.') != std::string::npos) {
      mantissa.erase(mantissa.find_last_not_of('0') + 1);
      if (mantissa.back() == '.') mantissa.pop_back();
    }
    return mantissa + scientific.substr(scientific.find('e'));
  }
  std::string body = float_digits(magnitude, 'g', precision, false);
  return body.find('.') == std::string::npos ? body + ".0" : body;
}

std::string format_float(Heap& heap, double number, const Spec& spec) {
  const double magnitude = std::abs(number);
  const int precision = spec.precision < 0 ? 6 : spec.precision;
  std::string body;
  switch (spec.type) {
    case 0:
      body = !std::isfinite(number) || spec.precision < 0 ? float_repr(magnitude)
                                                          : general_digits(magnitude, spec.precision);
      break;
    case 'n':
      body = float_digits(magnitude, 'g', precision, spec.alternate);
      break;
    case '%':
      body = float_digits(magnitude * 100, 'f', precision, spec.alternate) + "%";
      break;
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
      body = float_digits(magnitude, spec.type, precision, spec.alternate);
      break;
    default:
      fail("Unknown format code '{}' for object of type 'float'", spec.type);
  }
  if (spec.grouping != 0) {
    const size_t digits = std::min(body.find_first_not_of("0123456789"), body.size());
    body = group_digits(body.substr(0, digits), spec.grouping, 3) + body.substr(digits);
  }
  return finish_number(heap, spec, std::signbit(number) && !std::isnan(number), "", body);
}

std::string format_text(Heap& heap, std::string text, const Spec& spec) {
  if (spec.type != 0 && spec.type != 's')
    fail("Unknown format code '{}' for object of type 'str'", spec.type);
  if (spec.sign != '-') fail("Sign not allowed in string format specifier");
  if (spec.alternate) fail("Alternate form (#) not allowed in string format specifier");
  if (spec.align == '=') fail("'=' alignment not allowed in string format specifier");
  if (spec.grouping != 0) fail("Cannot specify '{}' with 's'.", spec.grouping);
  if (spec.precision >= 0) text.resize(offset_of(text, spec.precision));
  return pad_text(heap, std::move(text), spec.width, spec.align == 0 ? '<' : spec.align, spec.fill);
}

class BraceFormatter {
 public:
  BraceFormatter(Interpreter& interpreter, const Arguments& arguments)
      : interpreter_(interpreter), heap_(interpreter.heap()), arguments_(arguments) {}

  std::string run(std::string_view text, int nested) {
    if (nested < 0) fail("Max string recursion exceeded");
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const char c = text[at];
      if (c == '{' || c == '}') {
        if (at + 1 < text.size() && text[at + 1] == c) {
          out += c;
          at += 2;
          continue;
        }
        if (c == '}') fail("Single '}}' encountered in format string");
        ++at;
        out += field(text, at, nested);
      } else {
        out += c;
        ++at;
      }
      heap_.check_text(out.size());
    }
    heap_.step_bytes(out.size());
    return out;
  }

 private:
  // Of "{name!r:spec}", with `at` behind the brace.
  std::string field(std::string_view text, size_t& at, int nested) {
    const size_t start = at;
    int brackets = 0;
    while (at < text.size() && (brackets > 0 || (text[at] != '!' && text[at] != ':' && text[at] != '}'))) {
      if (text[at] == '{') fail("unexpected '{{' in field name");
      brackets += text[at] == '[' ? 1 : text[at] == ']' && brackets > 0 ? -1 : 0;
      ++at;
    }
    const std::string_view name = text.substr(start, at - start);
    char conversion = 0;
    if (at < text.size() && text[at] == '!') {
      if (at + 2 >= text.size()) fail("end of string while looking for conversion specifier");
      conversion = text[at + 1];
      at += 2;
      if (text[at] != ':' && text[at] != '}') fail("expected ':' after conversion specifier");
    }
    std::string_view spec;
    if (at < text.size() && text[at] == ':') {
      const size_t spec_start = ++at;
      for (int depth = 0; at < text.size() && (depth > 0 || text[at] != '}'); ++at) {
        depth += text[at] == '{' ? 1 : text[at] == '}' ? -1 : 0;
      }
      spec = text.substr(spec_start, at - spec_start);
    }
    if (at >= text.size()) fail("expected '}}' before end of string");
    ++at;
    Value value = lookup(name);
    if (conversion == 'r' || conversion == 'a') {
      value = heap_.string(repr(heap_, value));
    } else if (conversion == 's') {
      value = heap_.string(str(heap_, value));
    } else if (conversion != 0) {
      fail("Unknown conversion specifier {}", conversion);
    }
    return format_by_spec(heap_, value, run(spec, nested - 1));
  }

  static bool all_digits(std::string_view text) {
    return !text.empty() && text.size() < 10 && text.find_first_not_of("0123456789") == text.npos;
  }

  Value lookup(std::string_view name) {
    size_t at = std::min(name.find_first_of(".["), name.size());
    const std::string_view first = name.substr(0, at);
    Value value;
    if (first.empty() || all_digits(first)) {
      if (first.empty() ? next_ < 0 : next_ > 0)
        fail("cannot switch between manual and automatic field numbering");
      const size_t index =
          first.empty() ? static_cast<size_t>(next_++) : static_cast<size_t>(std::stoi(std::string(first)));
      if (!first.empty()) next_ = -1;
      if (index >= arguments_.positional.size()) fail("Replacement index {} out of range", index);
      value = arguments_.positional[index];
    } else {
      const Value* named = arguments_.find(first);
      if (named == nullptr) fail("KeyError: '{}'", first);
      value = *named;
    }
    while (at < name.size()) {
      if (name[at] == '.') {
        const size_t end = std::min(name.find_first_of(".[", at + 1), name.size());
        if (end == at + 1) fail("Empty attribute in format string");
        value = interpreter_.attribute(value, std::string(name.substr(at + 1, end - at - 1)));
        at = end;
      } else if (name[at] == '[') {
        const size_t end = name.find(']', at);
        if (end == name.npos) fail("Missing ']' in format string");
        const std::string_view key = name.substr(at + 1, end - at - 1);
        if (key.empty()) fail("Empty attribute in format string");
        const Value index = all_digits(key) ? Value::integer(std::stoi(std::string(key))) : heap_.string(key);
        value = interpreter_.item(value, index);
        at = end + 1;
        if (at < name.size() && name[at] != '.' && name[at] != '[') {
          fail("Only '.' or '[' may follow ']' in format field specifier");
        }
      }
    }
    return value;
  }

  Interpreter& interpreter_;
  Heap& heap_;
  const Arguments& arguments_;
  int next_ = 0;  // -1: fields are numbered by hand
};

}  // namespace

std::string format_by_spec(Heap& heap, const Value& value, std::string_view spec_text) {
  if (spec_text.empty()) return str(heap, value);
  switch (value.kind()) {
    case Kind::kString:
      return format_text(heap, value.text(), parse_spec(heap, spec_text));
    case Kind::kBool:
    case Kind::kInt: {
      const Spec spec = parse_spec(heap, spec_text);
      const bool as_float =
          spec.type != 0 && std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos;
      return as_float ? format_float(heap, static_cast<double>(value.as_int()), spec)
                      : format_integer(heap, value.as_int(), spec);
    }
    case Kind::kFloat:
      return format_float(heap, value.as_float(), parse_spec(heap, spec_text));
    default:
      fail("unsupported format string passed to {}.__format__", type_name(value));
  }
}

Value brace_format(Interpreter& interpreter, const Value& text, const Arguments& arguments) {
  if (text.as<StringObject>().markup) fail("format of escaped text is not supported");
  return interpreter.heap().string(BraceFormatter(interpreter, arguments).run(text.text(), 2));
}

}  // namespace fathom::text::jinja

// Filters on numbers and on single values of any type.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "text/template/filters.h"
#include "text/template/formatting.h"
#include "text/template/interpreter.h"
#include "text/template/printing.h"
#include "text/template/unicode.h"

namespace fathom::text::jinja {
namespace {

[[noreturn]] void fail_range() {
  fail("the number is beyond the 64-bit integers that templates may use");
}

// Removes single underscores between digits; false when one is elsewhere.
bool drop_underscores(std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
      continue;
    }
    const auto digit = [&](size_t k) { return std::isalnum(static_cast<unsigned char>(text[k])) != 0; };
    if (i == 0 || i + 1 >= text.size() || !digit(i - 1) || !digit(i + 1)) return false;
  }
  text = std::move(out);
  return true;
}

// Python's int(text, base).
bool parse_integer(std::string_view source, int64_t base, int64_t& number) {
  if (base != 0 && (base < 2 || base > 36)) return false;
  std::string text(strip(source));
  const bool negative = text.starts_with("-");
  if (negative || text.starts_with("+")) text.erase(0, 1);
  if (text.size() > 2 && text[0] == '0') {
    const char mark = static_cast<char>(text[1] | 0x20);
    const int prefixed = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (prefixed != 0 && (base == 0 || base == prefixed)) {
      base = prefixed;
      text.erase(0, 2);
      if (text.starts_with("_")) text.erase(0, 1);
    }
  }
  if (!drop_underscores(text) || text.empty()) return false;
  if (base == 0) {
    base = 10;
    if (text[0] == '0' && text.find_first_not_of('0') != text.npos) return false;
  }
  uint64_t magnitude = 0;
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, magnitude, static_cast<int>(base));
  if (result.ptr != end) return false;
  if (result.ec != std::errc() || magnitude > static_cast<uint64_t>(INT64_MAX)) fail_range();
  number = negative ? -static_cast<int64_t>(magnitude) : static_cast<int64_t>(magnitude);
  return true;
}

// Python's float(text).
bool parse_float(std::string_view source, double& number) {
  std::string text(strip(source));
  if (!drop_underscores(text) || text.empty()) return false;
  const std::string lower = to_lower(text.substr(text[0] == '-' || text[0] == '+' ? 1 : 0));
  const double sign = text[0] == '-' ? -1.0 : 1.0;
  if (lower == "inf" || lower == "infinity" || lower == "nan") {
    number = sign * (lower == "nan" ? std::nan("") : HUGE_VAL);
    return true;
  }
  if (lower.find_first_not_of("0123456789.e+-") != lower.npos) return false;
  char* end = nullptr;
  number = std::strtod(text.c_str(), &end);
  return end == text.c_str() + text.size();
}

Value truncated(double number) {
  if (!(std::abs(number) < 0x1p63)) fail_range();
  return Value::integer(static_cast<int64_t>(number));
}

Value int_filter(Interpreter&, const Value& input, const Arguments& arguments) {
  const ValueList given = bind("int", arguments, {"default", "base"});
  const Value fallback = given[0].is_missing() ? Value::integer(0) : given[0];
  if (input.is_undefined()) fail("{}", input.as<UndefinedObject>().message);
  if (input.is_integral()) return Value::integer(input.as_int());
  if (input.is(Kind::kBigInt)) return input;
  if (input.is(Kind::kFloat)) {
    if (std::isnan(input.as_float())) return fallback;
    if (std::isinf(input.as_float())) fail("cannot convert float infinity to integer");
    return truncated(input.as_float());
  }
  if (!input.is_string()) return fallback;
  int64_t number = 0;
  const int64_t base = given[1].is_missing() ? 10 : given[1].is_integral() ? given[1].as_int() : 1;
  if (parse_integer(input.text(), base, number)) return Value::integer(number);
  double as_float = 0;
  if (!parse_float(input.text(), as_float) || !std::isfinite(as_float)) return fallback;
  return truncated(as_float);
}

Value float_filter(Interpreter&, const Value& input, const Arguments& arguments) {
  const ValueList given = bind("float", arguments, {"default"});
  if (input.is_undefined()) fail("{}", input.as<UndefinedObject>().message);
  double number = 0;
  if (to_double(input, number)) return Value::number(number);
  if (input.is_string() && parse_float(input.text(), number)) return Value::number(number);
  return given[0].is_missing() ? Value::number(0) : given[0];
}

Value abs_filter(Interpreter&, const Value& input, const Arguments& arguments) {
  bind("abs", arguments, {});
  if (input.is(Kind::kFloat)) return Value::number(std::abs(input.as_float()));
  if (input.is(Kind::kBigInt)) return input;
  if (!input.is_integral()) fail("bad operand type for abs(): '{}'", type_name(input));
  return input.as_int() < 0 ? negate(input) : Value::integer(input.as_int());
}

// To the nearest multiple of 10^places, halves to even.
int64_t round_integer(int64_t number, int64_t places) {
  if (places > 18) return 0;
  int64_t unit = 1;
  for (int64_t i = 0; i < places; ++i) unit *= 10;
  int64_t quotient = number / unit;
  const int64_t rest = std::abs(number % unit);
  if (2 * static_cast<__int128>(rest) > unit ||
      (2 * static_cast<__int128>(rest) == unit && quotient % 2 != 0)) {
    quotient += number < 0 ? -1 : 1;
  }
  int64_t result = 0;
  if (__builtin_mul_overflow(quotient, unit, &result)) fail_range();
  return result;
}

double round_float(double number, int64_t precision) {
  constexpr int64_t kMostDigits = 323;
  if (!std::isfinite(number) || precision > kMostDigits) return number;
  if (precision < -308) return std::copysign(0.0, number);
  if (precision >= 0) {
    // The decimal text of a double is exact, so this rounds once.
    const std::string text = float_digits(std::abs(number), 'f', static_cast<int>(precision), false);
    return std::copysign(std::strtod(text.c_str(), nullptr), number);
  }
  const double unit = std::pow(10.0, static_cast<double>(-precision));
  return std::nearbyint(number / unit) * unit;
}

Value round_filter(Interpreter&, const Value& input, const Arguments& arguments) {
  const ValueList given = bind("round", arguments, {"precision", "method"});
  const std::string method = given[1].is_missing() ? "common" : given[1].is_string() ? given[1].text() : "";
  if (method != "common" && method != "ceil" && method != "floor")
    fail("method must be common, ceil or floor");
  if (method == "common") {
    if (!given[0].is_missing() && given[0].is_none()) fail("round with a precision of None is not supported");
    const int64_t precision = given[0].is_missing() ? 0 : want_int("round", given[0]);
    if (input.is_integral()) {
      return Value::integer(precision >= 0 ? input.as_int() : round_integer(input.as_int(), -precision));
    }
    if (!input.is(Kind::kFloat)) fail("type {} doesn't define __round__ method", type_name(input));
    return Value::number(round_float(input.as_float(), precision));
  }
  double number = 0;
  double precision = 0;
  if (!to_double(input, number)) fail("can't round a {}", type_name(input));
  if (!given[0].is_missing() && !to_double(given[0], precision))
    fail("can't round to a {}", type_name(given[0]));
  const double unit = std::pow(10.0, precision);
  const double scaled = number * unit;
  if (!std::isfinite(scaled)) fail("cannot convert float infinity or NaN to integer");
  return Value::number((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / unit);
}

Value default_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  const ValueList given = bind("default", arguments, {"default_value", "boolean"});
  if (!input.is_undefined() && !(flag(given[1]) && !truthy(input))) return input;
  return given[0].is_missing() ? run.heap().string("") : given[0];
}

Value attr_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  const ValueList given = bind("attr", arguments, {"name"}, 1);
  if (!given[0].is_string()) fail("attribute name must be string, not '{}'", type_name(given[0]));
  if (input.is_undefined()) fail("{}", input.as<UndefinedObject>().message);
  Value value = native_attribute(run, input, given[0].text());
  if (!value.is_missing()) return value;
  return run.heap().undefined(
      fmt::format("'{} object' has no attribute '{}'", type_name(input), given[0].text()));
}

Value length_filter(Interpreter&, const Value& input, const Arguments& arguments) {
  bind("length", arguments, {});
  const int64_t length = input.is(Kind::kLoop) ? input.as<LoopObject>().length() : length_of(input);
  if (length < 0) fail("object of type '{}' has no len()", type_name(input));
  return Value::integer(length);
}

Value filesizeformat_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  const ValueList given = bind("filesizeformat", arguments, {"binary"});
  double bytes = 0;
  if (!to_double(input, bytes) && !(input.is_string() && parse_float(input.text(), bytes))) {
    fail("could not convert to float: {}", repr(run.heap(), input));
  }
  const bool binary = flag(given[0]);
  const double base = binary ? 1024 : 1000;
  if (bytes == 1) return run.heap().string("1 Byte");
  if (bytes < base) {
    if (!(std::abs(bytes) < 0x1p63)) fail_range();
    return run.heap().string(std::to_string(static_cast<int64_t>(bytes)) + " Bytes");
  }
  constexpr const char* kPrefixes[] = {"k", "M", "G", "T", "P", "E", "Z", "Y"};
  double unit = base;
  const char* prefix = "Y";
  for (const char* candidate : kPrefixes) {
    unit *= base;
    if (bytes < unit) {
      prefix = candidate;
      break;
    }
  }
  std::string name = binary && prefix[0] == 'k' ? "K" : prefix;
  name += binary ? "iB" : "B";
  return run.heap().string(float_digits(base * bytes / unit, 'f', 1, false) + " " + name);
}

constexpr NamedFilter kTable[] = {
    {"abs", abs_filter},     {"attr", attr_filter},       {"count", length_filter},
    {"d", default_filter},   {"default", default_filter}, {"filesizeformat", filesizeformat_filter},
    {"float", float_filter}, {"int", int_filter},         {"length", length_filter},
    {"round", round_filter},
};

}  // namespace

FilterSpan number_filters() {
  return {std::begin(kTable), std::end(kTable)};
}

}  // namespace fathom::text::jinja

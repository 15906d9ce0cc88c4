#include "text/template/operators.h"

#include <cmath>
#include <limits>

#include "base/random.h"
#include "text/template/formatting.h"
#include "text/template/printing.h"
#include "text/template/unicode.h"

namespace fathom::text::jinja {
namespace {

const char* symbol(BinaryOp op) {
  constexpr const char* kSymbols[] = {"+", "-", "*", "/", "//", "%", "**"};
  return kSymbols[static_cast<size_t>(op)];
}

[[noreturn]] void fail_undefined(const Value& value) {
  fail("{}", value.as<UndefinedObject>().message);
}
[[noreturn]] void fail_operands(BinaryOp op, const Value& left, const Value& right) {
  fail("unsupported operand type(s) for {}: '{}' and '{}'", symbol(op), type_name(left), type_name(right));
}
[[noreturn]] void fail_overflow() {
  fail("the result is beyond the 64-bit integers that templates may use");
}

int64_t floor_div(int64_t a, int64_t b) {
  const int64_t q = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}
int64_t floor_mod(int64_t a, int64_t b) {
  const int64_t r = a % b;
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
double float_mod(double a, double b) {
  double r = std::fmod(a, b);
  if (r != 0) {
    if ((b < 0) != (r < 0)) r += b;
  } else {
    r = std::copysign(0.0, b);
  }
  return r;
}
// As CPython: from the remainder, so that a == b * (a // b) + a % b as nearly as can be.
double float_floor_div(double a, double b) {
  double r = std::fmod(a, b);
  double q = (a - r) / b;
  if (r != 0 && (b < 0) != (r < 0)) q -= 1.0;
  if (q == 0) return std::copysign(0.0, a / b);
  const double floor = std::floor(q);
  return q - floor > 0.5 ? floor + 1.0 : floor;
}

Value integer_power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) fail_overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) fail_overflow();
  }
  return Value::integer(result);
}

Value integer_op(BinaryOp op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case BinaryOp::kAdd:
      if (__builtin_add_overflow(a, b, &result)) fail_overflow();
      return Value::integer(result);
    case BinaryOp::kSub:
      if (__builtin_sub_overflow(a, b, &result)) fail_overflow();
      return Value::integer(result);
    case BinaryOp::kMul:
      if (__builtin_mul_overflow(a, b, &result)) fail_overflow();
      return Value::integer(result);
    case BinaryOp::kDiv:
      if (b == 0) fail("division by zero");
      return Value::number(static_cast<double>(static_cast<long double>(a) / static_cast<long double>(b)));
    case BinaryOp::kFloorDiv:
      if (b == 0) fail("integer division or modulo by zero");
      if (a == INT64_MIN && b == -1) fail_overflow();
      return Value::integer(floor_div(a, b));
    case BinaryOp::kMod:
      if (b == 0) fail("integer modulo by zero");
      return Value::integer(b == -1 ? 0 : floor_mod(a, b));
    case BinaryOp::kPow:
      if (b >= 0) return integer_power(a, b);
      if (a == 0) fail("0.0 cannot be raised to a negative power");
      return Value::number(std::pow(static_cast<double>(a), static_cast<double>(b)));
  }
  fail("unknown operator");
}

Value float_op(BinaryOp op, double a, double b) {
  if ((op == BinaryOp::kDiv || op == BinaryOp::kFloorDiv || op == BinaryOp::kMod) && b == 0) {
    fail("float division by zero");
  }
  switch (op) {
    case BinaryOp::kAdd:
      return Value::number(a + b);
    case BinaryOp::kSub:
      return Value::number(a - b);
    case BinaryOp::kMul:
      return Value::number(a * b);
    case BinaryOp::kDiv:
      return Value::number(a / b);
    case BinaryOp::kFloorDiv:
      return Value::number(float_floor_div(a, b));
    case BinaryOp::kMod:
      return Value::number(float_mod(a, b));
    case BinaryOp::kPow: {
      if (a == 0 && b < 0) fail("0.0 cannot be raised to a negative power");
      if (a < 0 && std::isfinite(a) && std::isfinite(b) && b != std::floor(b)) {
        fail("complex numbers are not supported");
      }
      const double result = std::pow(a, b);
      if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) fail("Numerical result out of range");
      return Value::number(result);
    }
  }
  fail("unknown operator");
}

Value repeat(Heap& heap, const Value& value, int64_t count) {
  const auto times = static_cast<size_t>(std::max<int64_t>(count, 0));
  if (value.is_string()) {
    const std::string& text = value.text();
    if (!text.empty() && times > (std::numeric_limits<size_t>::max)() / text.size())
      heap.check_text(SIZE_MAX);
    heap.check_text(text.size() * times);
    std::string out;
    out.reserve(text.size() * times);
    for (size_t i = 0; i < (text.empty() ? 0 : times); ++i) out += text;
    return heap.string(std::move(out), value.as<StringObject>().markup);
  }
  const ValueList& items = value.items();
  ValueList out;
  if (!items.empty() && times > 0) {
    if (times > (size_t{1} << 40) / items.size()) heap.grow(SIZE_MAX / 2);
    const size_t bytes = items.size() * times * sizeof(Value);
    heap.grow(bytes);  // that it would fit is checked before it is made
    heap.shrink(bytes);
    heap.step(items.size() * times);
    out.reserve(items.size() * times);
    for (size_t i = 0; i < times; ++i) out.insert(out.end(), items.begin(), items.end());
  }
  return value.is(Kind::kList) ? heap.list(std::move(out)) : heap.tuple(std::move(out));
}

Value add_text(Heap& heap, const Value& left, const Value& right) {
  const auto& a = left.as<StringObject>();
  const auto& b = right.as<StringObject>();
  const bool markup = a.markup || b.markup;
  std::string out;
  const std::string first = markup && !a.markup ? escape_html(a.text) : std::string();
  const std::string second = markup && !b.markup ? escape_html(b.text) : std::string();
  const std::string& x = markup && !a.markup ? first : a.text;
  const std::string& y = markup && !b.markup ? second : b.text;
  heap.check_text(x.size() + y.size());
  out.reserve(x.size() + y.size());
  out += x;
  out += y;
  return heap.string(std::move(out), markup);
}

}  // namespace

bool to_double(const Value& value, double& number) {
  switch (value.kind()) {
    case Kind::kBool:
    case Kind::kInt:
      number = static_cast<double>(value.as_int());
      return true;
    case Kind::kBigInt:
      number = static_cast<double>(value.as_big_int());
      return true;
    case Kind::kFloat:
      number = value.as_float();
      return true;
    default:
      return false;
  }
}

Value binary(Heap& heap, BinaryOp op, const Value& left, const Value& right) {
  if (left.is_integral() && right.is_integral()) return integer_op(op, left.as_int(), right.as_int());
  if (op == BinaryOp::kMod && left.is_string()) return percent_format(heap, left, right);
  if (left.is_undefined()) fail_undefined(left);
  if (right.is_undefined()) fail_undefined(right);
  double a = 0;
  double b = 0;
  if (to_double(left, a) && to_double(right, b)) {
    if (!left.is(Kind::kFloat) && !right.is(Kind::kFloat)) fail_overflow();
    return float_op(op, a, b);
  }
  if (op == BinaryOp::kAdd) {
    if (left.is_string() && right.is_string()) return add_text(heap, left, right);
    if (left.is_sequence() && left.kind() == right.kind()) {
      const size_t bytes = (left.items().size() + right.items().size()) * sizeof(Value);
      heap.grow(bytes);  // that it would fit is checked before it is made
      heap.shrink(bytes);
      ValueList items = left.items();
      items.insert(items.end(), right.items().begin(), right.items().end());
      heap.step(items.size());
      return left.is(Kind::kList) ? heap.list(std::move(items)) : heap.tuple(std::move(items));
    }
  }
  if (op == BinaryOp::kMul) {
    const auto repeatable = [](const Value& v) { return v.is_string() || v.is_sequence(); };
    if (repeatable(left) && right.is_integral()) return repeat(heap, left, right.as_int());
    if (repeatable(right) && left.is_integral()) return repeat(heap, right, left.as_int());
  }
  fail_operands(op, left, right);
}

Value negate(const Value& value) {
  if (value.is_integral()) {
    if (value.as_int() == INT64_MIN) fail_overflow();
    return Value::integer(-value.as_int());
  }
  if (value.is(Kind::kFloat)) return Value::number(-value.as_float());
  if (value.is(Kind::kBigInt)) fail_overflow();
  if (value.is_undefined()) fail_undefined(value);
  fail("bad operand type for unary -: '{}'", type_name(value));
}

Value positive(const Value& value) {
  if (value.is_integral()) return Value::integer(value.as_int());
  if (value.is(Kind::kFloat) || value.is(Kind::kBigInt)) return value;
  if (value.is_undefined()) fail_undefined(value);
  fail("bad operand type for unary +: '{}'", type_name(value));
}

namespace {

// start, stop and step of a slice of `length` items, as Python clamps them.
struct SliceBounds {
  int64_t start, stop, step;
};
SliceBounds slice_bounds(int64_t length, const Value& start, const Value& stop, const Value& step) {
  const auto index = [](const Value& value, int64_t absent) {
    if (value.is_missing() || value.is_none()) return absent;
    if (!value.is_integral()) fail("slice indices must be integers or None or have an __index__ method");
    return value.as_int();
  };
  SliceBounds b{};
  b.step = index(step, 1);
  if (b.step == 0) fail("slice step cannot be zero");
  if (b.step == INT64_MIN) b.step = -INT64_MAX;
  const int64_t low = b.step < 0 ? -1 : 0;
  const int64_t high = b.step < 0 ? length - 1 : length;
  const auto clamp = [&](int64_t i) {
    if (i < 0) return i + length < low ? low : i + length;
    return std::min(i, high);
  };
  const bool no_start = start.is_missing() || start.is_none();
  const bool no_stop = stop.is_missing() || stop.is_none();
  b.start = no_start ? (b.step < 0 ? high : low) : clamp(index(start, 0));
  b.stop = no_stop ? (b.step < 0 ? low : high) : clamp(index(stop, 0));
  return b;
}

template <class Take>
void for_slice(const SliceBounds& b, Take take) {
  if (b.step > 0) {
    for (int64_t i = b.start; i < b.stop; i += std::min(b.step, b.stop - i)) take(i);
  } else {
    for (int64_t i = b.start; i > b.stop; i -= std::min(-b.step, i - b.stop)) take(i);
  }
}

}  // namespace

Value slice(Heap& heap, const Value& value, const Value& start, const Value& stop, const Value& step) {
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_string() && !value.is_sequence() && !value.is(Kind::kRange)) {
    fail("'{}' object is not subscriptable", type_name(value));
  }
  const SliceBounds b = slice_bounds(length_of(value), start, stop, step);
  if (value.is(Kind::kRange)) {
    auto range = std::make_shared<RangeObject>(value.as<RangeObject>());
    int64_t count = 0;
    for_slice(b, [&](int64_t) { ++count; });
    const int64_t first = range->start;
    range->start = first + range->step * b.start;
    range->stop = first + range->step * b.stop;
    range->step *= b.step;
    range->count = count;
    return Value(Kind::kRange, std::move(range));
  }
  if (value.is_string()) {
    const auto& text = value.as<StringObject>();
    heap.step_bytes(text.text.size());
    std::string out;
    if (b.step == 1) {
      if (b.start < b.stop) {
        const size_t from = text.ascii() ? static_cast<size_t>(b.start) : offset_of(text.text, b.start);
        const size_t to = text.ascii()
                              ? static_cast<size_t>(b.stop)
                              : from + offset_of(std::string_view(text.text).substr(from), b.stop - b.start);
        out = text.text.substr(from, to - from);
      }
    } else {
      const auto codes = code_points(text.text);
      for_slice(b, [&](int64_t i) { append_code_point(out, codes[static_cast<size_t>(i)]); });
    }
    return heap.string(std::move(out), text.markup);
  }
  ValueList out;
  for_slice(b, [&](int64_t i) { out.push_back(value.items()[static_cast<size_t>(i)]); });
  heap.step(out.size());
  return value.is(Kind::kList) ? heap.list(std::move(out)) : heap.tuple(std::move(out));
}

}  // namespace fathom::text::jinja

// Equality, order, membership and hashes.
#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "text/template/operators.h"
#include "text/template/unicode.h"

namespace fathom::text::jinja {
namespace {

bool is_number(const Value& value) {
  return value.is_integral() || value.is(Kind::kFloat) || value.is(Kind::kBigInt);
}

enum class Order { kLess, kEqual, kGreater, kUnordered };

// Exact, also between integers and floats that a double cannot hold both of.
Order order_numbers(const Value& left, const Value& right) {
  const auto integer = [](const Value& v) -> __int128 {
    return v.is(Kind::kBigInt) ? static_cast<__int128>(v.as_big_int()) : static_cast<__int128>(v.as_int());
  };
  const auto of = [](auto a, auto b) {
    return a < b ? Order::kLess : a > b ? Order::kGreater : Order::kEqual;
  };
  const bool left_float = left.is(Kind::kFloat);
  const bool right_float = right.is(Kind::kFloat);
  if (!left_float && !right_float) return of(integer(left), integer(right));
  if (left_float && right_float) {
    if (std::isnan(left.as_float()) || std::isnan(right.as_float())) return Order::kUnordered;
    return of(left.as_float(), right.as_float());
  }
  const double number = left_float ? left.as_float() : right.as_float();
  const __int128 other = integer(left_float ? right : left);
  if (std::isnan(number)) return Order::kUnordered;
  Order order = Order::kEqual;
  if (std::abs(number) >= 0x1p100) {
    order = number < 0 ? Order::kLess : Order::kGreater;
  } else {
    const auto whole = static_cast<__int128>(number);
    order = of(whole, other);
    if (order == Order::kEqual) order = of(number, static_cast<double>(whole));
  }
  if (left_float || order == Order::kEqual) return order;
  return order == Order::kLess ? Order::kGreater : Order::kLess;
}

bool equal_lists(Heap& heap, const ValueList& a, const ValueList& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!identical(a[i], b[i]) && !equals(heap, a[i], b[i])) return false;
  }
  return true;
}

bool equal_dicts(Heap& heap, const DictObject& a, const DictObject& b) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    const Value* other = b.find(key);
    if (other == nullptr || (!identical(value, *other) && !equals(heap, value, *other))) return false;
  }
  return true;
}

bool ordered(CompareOp op, Order order) {
  switch (op) {
    case CompareOp::kLt:
      return order == Order::kLess;
    case CompareOp::kLe:
      return order == Order::kLess || order == Order::kEqual;
    case CompareOp::kGt:
      return order == Order::kGreater;
    default:
      return order == Order::kGreater || order == Order::kEqual;
  }
}

bool order_by(Heap& heap, CompareOp op, const Value& left, const Value& right) {
  const Heap::Depth depth(heap);
  heap.step();
  if (is_number(left) && is_number(right)) return ordered(op, order_numbers(left, right));
  if (left.is_string() && right.is_string()) {
    // UTF-8 sorts as its code points do.
    heap.step_bytes(std::min(left.text().size(), right.text().size()));
    const int c = left.text().compare(right.text());
    return ordered(op, c < 0 ? Order::kLess : c > 0 ? Order::kGreater : Order::kEqual);
  }
  if (left.is_sequence() && left.kind() == right.kind()) {
    const ValueList& a = left.items();
    const ValueList& b = right.items();
    for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
      if (!identical(a[i], b[i]) && !equals(heap, a[i], b[i])) return order_by(heap, op, a[i], b[i]);
    }
    return ordered(op, a.size() < b.size()   ? Order::kLess
                       : a.size() > b.size() ? Order::kGreater
                                             : Order::kEqual);
  }
  for (const Value* side : {&left, &right}) {
    if (side->is_undefined()) fail("{}", side->as<UndefinedObject>().message);
  }
  constexpr const char* kSymbols[] = {"==", "!=", "<", "<=", ">", ">="};
  fail("'{}' not supported between instances of '{}' and '{}'", kSymbols[static_cast<size_t>(op)],
       type_name(left), type_name(right));
}

uint64_t hash_text(std::string_view text) {
  // A start that differs from process to process: keys come from requests.
  static const uint64_t start = random_bits(reinterpret_cast<uintptr_t>(&start), 0x6a6e6a61, 1);
  uint64_t hash = start;
  for (const char c : text) hash = mix64(hash ^ static_cast<unsigned char>(c));
  return hash;
}

}  // namespace

bool identical(const Value& left, const Value& right) {
  if (left.kind() != right.kind()) return false;
  if (left.object() != nullptr || right.object() != nullptr) return left.object() == right.object();
  if (left.is(Kind::kFloat)) return false;
  return left.as_int() == right.as_int();
}

bool equals(Heap& heap, const Value& left, const Value& right) {
  const Heap::Depth depth(heap);
  heap.step();
  if (left.is_string() && right.is_string()) {
    if (left.text().size() != right.text().size()) return false;
    heap.step_bytes(left.text().size());
    return left.text() == right.text();
  }
  if (is_number(left) && is_number(right)) return order_numbers(left, right) == Order::kEqual;
  if (left.kind() != right.kind()) return false;
  switch (left.kind()) {
    case Kind::kMissing:
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kList:
    case Kind::kTuple:
      return equal_lists(heap, left.items(), right.items());
    case Kind::kDict:
      return equal_dicts(heap, left.as<DictObject>(), right.as<DictObject>());
    case Kind::kRange: {
      const auto& a = left.as<RangeObject>();
      const auto& b = right.as<RangeObject>();
      if (a.count != b.count || a.count == 0) return a.count == b.count;
      return a.start == b.start && (a.count == 1 || a.step == b.step);
    }
    case Kind::kDictView: {
      const auto& a = left.as<DictViewObject>();
      const auto& b = right.as<DictViewObject>();
      if (a.what == DictViewObject::What::kValues || b.what == DictViewObject::What::kValues) {
        return left.object() == right.object();
      }
      if (length_of(left) != length_of(right)) return false;
      for (size_t i = 0; i < a.dict->entries.size(); ++i) {
        if (!contains(heap, right, dict_view_item(heap, a, i))) return false;
      }
      return true;
    }
    default:
      return left.object() == right.object();
  }
}

bool compare(Heap& heap, CompareOp op, const Value& left, const Value& right) {
  switch (op) {
    case CompareOp::kEq:
      return equals(heap, left, right);
    case CompareOp::kNe:
      return !equals(heap, left, right);
    case CompareOp::kIn:
      return contains(heap, right, left);
    case CompareOp::kNotIn:
      return !contains(heap, right, left);
    default:
      return order_by(heap, op, left, right);
  }
}

bool contains(Heap& heap, const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::kString:
      if (!item.is_string()) fail("'in <string>' requires string as left operand, not {}", type_name(item));
      heap.step_bytes(container.text().size());
      return find_text(container.text(), item.text()) != std::string::npos;
    case Kind::kDict:
      return container.as<DictObject>().find(item) != nullptr;
    case Kind::kDictView: {
      const auto& view = container.as<DictViewObject>();
      if (view.what == DictViewObject::What::kKeys) return view.dict->find(item) != nullptr;
      break;
    }
    default:
      if (!is_iterable(container)) fail("argument of type '{}' is not iterable", type_name(container));
  }
  const auto walk = iterate(heap, container);
  for (Value each; walk->advance(each);) {
    if (identical(each, item) || equals(heap, each, item)) return true;
  }
  return false;
}

bool is_hashable(Heap& heap, const Value& value) {
  const Heap::Depth depth(heap);
  heap.step();
  if (value.is(Kind::kTuple)) {
    return std::all_of(value.items().begin(), value.items().end(),
                       [&](const Value& item) { return is_hashable(heap, item); });
  }
  return !value.is(Kind::kList) && !value.is(Kind::kDict) && !value.is(Kind::kDictView);
}

uint64_t hash_of(Heap& heap, const Value& value) {
  const Heap::Depth depth(heap);
  heap.step();
  if (value.is(Kind::kList) || value.is(Kind::kDict) || value.is(Kind::kDictView))
    fail("unhashable type: '{}'", type_name(value));
  switch (value.kind()) {
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kBigInt:
      return mix64(static_cast<uint64_t>(value.as_int()));
    case Kind::kFloat: {
      const double number = value.as_float();
      if (number == std::floor(number) && std::abs(number) < 0x1p63) {
        return mix64(static_cast<uint64_t>(static_cast<int64_t>(number)));
      }
      if (number == std::floor(number) && number > 0 && number < 0x1p64) {
        return mix64(static_cast<uint64_t>(number));
      }
      return mix64(__builtin_bit_cast(uint64_t, number));
    }
    case Kind::kString:
      heap.step_bytes(value.text().size());
      return hash_text(value.text());
    case Kind::kTuple: {
      uint64_t hash = 0x7475706c65;
      for (const Value& item : value.items()) hash = mix64(hash + hash_of(heap, item));
      return hash;
    }
    default:
      return mix64(static_cast<uint64_t>(value.kind()) + 0x6b696e64);
  }
}

}  // namespace fathom::text::jinja

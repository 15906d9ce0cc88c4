// Python's operators on values: arithmetic, comparison, membership, subscripts. Each fails as Python would
// with a TypeError and the like.
#pragma once

#include "text/template/value.h"

namespace fathom::text::jinja {

enum class BinaryOp : uint8_t { kAdd, kSub, kMul, kDiv, kFloorDiv, kMod, kPow };
enum class CompareOp : uint8_t { kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };

Value binary(Heap& heap, BinaryOp op, const Value& left, const Value& right);
Value negate(const Value& value);
Value positive(const Value& value);

bool equals(Heap& heap, const Value& left, const Value& right);
bool compare(Heap& heap, CompareOp op, const Value& left, const Value& right);
inline bool less(Heap& heap, const Value& a, const Value& b) {
  return compare(heap, CompareOp::kLt, a, b);
}
bool contains(Heap& heap, const Value& container, const Value& item);
bool identical(const Value& left, const Value& right);  // Python's `is`
bool is_hashable(Heap& heap, const Value& value);
uint64_t hash_of(Heap& heap, const Value& value);  // fails for what Python cannot hash

// text[i] and x[a:b:c]. A missing part of a slice is Kind::kMissing.
Value slice(Heap& heap, const Value& value, const Value& start, const Value& stop, const Value& step);

// A number as a double; false when it is none.
bool to_double(const Value& value, double& number);

}  // namespace fathom::text::jinja

// The `attribute` argument of filters: "name", "author.name", 0.
#pragma once

#include <vector>

#include "text/template/interpreter.h"

namespace fathom::text::jinja {

// A path of keys, from text parted at dots. Null or absent: the empty path.
ValueList attribute_path(Heap& heap, const Value& attribute);
// Follows a path; where a step finds nothing and `fallback` is given, continues with that.
Value follow(Interpreter& run, Value item, const ValueList& path, const Value& fallback = Value());
// Text in lower case, everything else as it is.
Value ignore_case(Heap& heap, const Value& value);

// Python's stable sort. `keys` has one key for each item.
ValueList sorted_by(Heap& heap, const ValueList& items, const ValueList& keys, bool reverse);

}  // namespace fathom::text::jinja

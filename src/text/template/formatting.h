// Python's ways to format: `'%d' % x`, `'{}'.format(x)` and HTML escapes.
#pragma once

#include <string>

#include "text/template/value.h"

namespace fathom::text::jinja {

struct Arguments;
class Interpreter;

std::string escape_html(std::string_view text);

// text % values: one value, a tuple of them, or a dict for %(name)s.
Value percent_format(Heap& heap, const Value& text, const Value& values);

// text.format(...), with the attribute and item access that templates have.
Value brace_format(Interpreter& interpreter, const Value& text, const Arguments& arguments);

// One value by a format specification: [[fill]align][sign][#][0][width][,|_][.precision][type].
std::string format_by_spec(Heap& heap, const Value& value, std::string_view spec);

// Digits of a number without its sign. `type`: one of e, f, g (or their capitals).
std::string float_digits(double magnitude, char type, int precision, bool alternate);
std::string integer_digits(uint64_t magnitude, int base, bool capitals);

// Pads to `width` code points; align is one of < > ^.
std::string pad_text(Heap& heap, std::string text, int64_t width, char align, std::string_view fill);

}  // namespace fathom::text::jinja

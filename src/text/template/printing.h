// Values as text: Python's str(), repr() and json.dumps().
#pragma once

#include <string>

#include "text/template/value.h"

namespace fathom::text::jinja {

void append_str(Heap& heap, std::string& out, const Value& value);
void append_repr(Heap& heap, std::string& out, const Value& value);
std::string str(Heap& heap, const Value& value);
std::string repr(Heap& heap, const Value& value);

std::string float_repr(double number);
std::string string_repr(std::string_view text);

struct JsonStyle {
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  std::string indent;  // of one level; used when `pretty`
  bool pretty = false;
  bool ensure_ascii = false;
  bool sort_keys = false;
};
std::string to_json(Heap& heap, const Value& value, const JsonStyle& style);

}  // namespace fathom::text::jinja

// Jinja's filters. Left out, and so unknown to templates: pprint, random, striptags, urlize, wordwrap,
// xmlattr.
#pragma once

#include <string_view>

#include "text/template/arguments.h"
#include "text/template/ast.h"

namespace fathom::text::jinja {

// Null when there is no filter of that name.
FilterFunction find_filter(std::string_view name);

// One file's share of the table.
struct NamedFilter {
  const char* name;
  FilterFunction function;
};
struct FilterSpan {
  const NamedFilter* begin;
  const NamedFilter* end;
};
FilterSpan text_filters();
FilterSpan sequence_filters();
FilterSpan selection_filters();
FilterSpan number_filters();

// The value as text, already text kept as it is (with its mark of being escaped).
Value soft_text(Heap& heap, const Value& value);

}  // namespace fathom::text::jinja

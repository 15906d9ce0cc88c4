#include "text/template/filters.h"

#include <unordered_map>

#include "text/template/printing.h"

namespace fathom::text::jinja {

FilterFunction find_filter(std::string_view name) {
  static const auto kTable = [] {
    std::unordered_map<std::string_view, FilterFunction> table;
    for (const FilterSpan& span :
         {text_filters(), sequence_filters(), selection_filters(), number_filters()}) {
      for (const NamedFilter* filter = span.begin; filter != span.end; ++filter) {
        table.emplace(filter->name, filter->function);
      }
    }
    return table;
  }();
  const auto it = kTable.find(name);
  return it == kTable.end() ? nullptr : it->second;
}

Value soft_text(Heap& heap, const Value& value) {
  return value.is_string() ? value : heap.string(str(heap, value));
}

}  // namespace fathom::text::jinja

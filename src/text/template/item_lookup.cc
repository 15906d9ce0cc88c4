#include "text/template/item_lookup.h"

#include <algorithm>
#include <numeric>

#include "text/template/splitting.h"
#include "text/template/unicode.h"

namespace fathom::text::jinja {

ValueList attribute_path(Heap& heap, const Value& attribute) {
  if (attribute.is_missing() || attribute.is_none()) return {};
  if (!attribute.is_string()) return {attribute};
  ValueList path;
  for (const std::string_view part : split_text(attribute.text(), ".", -1, false)) {
    const bool number =
        !part.empty() && part.size() < 19 && part.find_first_not_of("0123456789") == part.npos;
    path.push_back(number ? Value::integer(std::stoll(std::string(part))) : heap.string(part));
  }
  return path;
}

Value follow(Interpreter& run, Value item, const ValueList& path, const Value& fallback) {
  for (const Value& key : path) {
    item = run.item(item, key);
    if (item.is_undefined() && !fallback.is_missing() && !fallback.is_none()) item = fallback;
  }
  return item;
}

Value ignore_case(Heap& heap, const Value& value) {
  if (!value.is_string()) return value;
  heap.step_bytes(4 * value.text().size());
  return heap.string(to_lower(value.text()));
}

ValueList sorted_by(Heap& heap, const ValueList& items, const ValueList& keys, bool reverse) {
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::vector<size_t> merged(items.size());
  const auto goes_first = [&](size_t a, size_t b) {
    return reverse ? less(heap, keys[b], keys[a]) : less(heap, keys[a], keys[b]);
  };
  // Bottom-up merge sort: unlike the standard one it stays in bounds whatever the comparisons say.
  for (size_t width = 1; width < order.size(); width *= 2) {
    for (size_t start = 0; start < order.size(); start += 2 * width) {
      const size_t middle = std::min(start + width, order.size());
      const size_t end = std::min(start + 2 * width, order.size());
      size_t left = start;
      size_t right = middle;
      for (size_t out = start; out < end; ++out) {
        heap.step();
        const bool take_right = left >= middle || (right < end && goes_first(order[right], order[left]));
        merged[out] = take_right ? order[right++] : order[left++];
      }
    }
    std::swap(order, merged);
  }
  ValueList sorted;
  sorted.reserve(items.size());
  for (const size_t i : order) sorted.push_back(items[i]);
  return sorted;
}

}  // namespace fathom::text::jinja

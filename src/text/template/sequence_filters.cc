// Filters on sequences and mappings as a whole.
#include <algorithm>

#include "text/template/filters.h"
#include "text/template/item_lookup.h"
#include "text/template/splitting.h"
#include "text/template/unicode.h"

namespace fathom::text::jinja {
namespace {

Value first_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  bind("first", arguments, {});
  Value item;
  if (iterate(run.heap(), input)->advance(item)) return item;
  return run.heap().undefined("No first item, sequence was empty.");
}

bool is_reversible(const Value& value) {
  return is_iterable(value) && !value.is(Kind::kIterator);
}

Value last_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  bind("last", arguments, {});
  if (!is_reversible(input)) fail("'{}' object is not reversible", type_name(input));
  const int64_t length = length_of(input);
  if (length == 0) return run.heap().undefined("No last item, sequence was empty.");
  const auto at = static_cast<size_t>(length - 1);
  if (input.is(Kind::kDict)) return input.as<DictObject>().entries[at].first;
  if (input.is(Kind::kDictView)) return dict_view_item(run.heap(), input.as<DictViewObject>(), at);
  return run.item(input, Value::integer(length - 1));
}

Value list_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  bind("list", arguments, {});
  return run.heap().list(to_list(run.heap(), input));
}

// Walks a list that belongs to the walk alone.
Value walk_over(Heap& heap, const char* type, ValueList items) {
  const Value list = heap.list(std::move(items));
  return heap.iterator(type, [&heap, list, i = size_t{0}](Value& item) mutable {
    heap.step();
    if (i >= list.items().size()) return false;
    item = list.items()[i++];
    return true;
  });
}

Value reverse_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  bind("reverse", arguments, {});
  Heap& heap = run.heap();
  if (input.is_string()) {
    auto codes = code_points(input.text());
    std::reverse(codes.begin(), codes.end());
    return heap.string(from_code_points(codes), input.as<StringObject>().markup);
  }
  ValueList items = to_list(heap, input);
  std::reverse(items.begin(), items.end());
  return is_reversible(input) ? walk_over(heap, "list_reverseiterator", std::move(items))
                              : heap.list(std::move(items));
}

Value sort_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  const ValueList given = bind("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  Heap& heap = run.heap();
  std::vector<ValueList> paths;
  if (given[2].is_string()) {
    for (const auto& part : split_text(given[2].text(), ",", -1, false)) {
      paths.push_back(attribute_path(heap, heap.string(part)));
    }
  } else {
    paths.push_back(attribute_path(heap, given[2]));
  }
  const ValueList items = to_list(heap, input);
  ValueList keys;
  for (const Value& item : items) {
    ValueList key;
    for (const ValueList& path : paths) {
      const Value part = follow(run, item, path);
      key.push_back(flag(given[1]) ? part : ignore_case(heap, part));
    }
    keys.push_back(heap.list(std::move(key)));
  }
  return heap.list(sorted_by(heap, items, keys, flag(given[0])));
}

Value dictsort_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  const ValueList given = bind("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  Heap& heap = run.heap();
  const std::string by = given[1].is_missing() ? "key" : given[1].is_string() ? given[1].text() : "";
  if (by != "key" && by != "value") fail("You can only sort by either \"key\" or \"value\"");
  if (!input.is(Kind::kDict)) fail("'{}' object has no attribute 'items'", type_name(input));
  ValueList items;
  ValueList keys;
  for (const auto& [key, value] : input.as<DictObject>().entries) {
    items.push_back(heap.tuple({key, value}));
    const Value& sort_key = by == "key" ? key : value;
    keys.push_back(flag(given[0]) ? sort_key : ignore_case(heap, sort_key));
  }
  return heap.list(sorted_by(heap, items, keys, flag(given[2])));
}

Value unique_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  const ValueList given = bind("unique", arguments, {"case_sensitive", "attribute"});
  Heap& heap = run.heap();
  const bool case_sensitive = flag(given[0]);
  struct State {
    ValueList path;
    std::shared_ptr<IteratorObject> source;
    std::shared_ptr<DictObject> seen;
  };
  auto state = std::make_shared<State>();
  state->path = attribute_path(heap, given[1]);
  state->seen = heap.dict();
  return heap.iterator("generator", [&run, input, case_sensitive, state](Value& item) {
    if (state->source == nullptr) state->source = iterate(run.heap(), input);
    while (state->source->advance(item)) {
      Value key = follow(run, item, state->path);
      if (!case_sensitive) key = ignore_case(run.heap(), key);
      if (state->seen->find(key) != nullptr) continue;
      state->seen->set(key, Value::none());
      return true;
    }
    return false;
  });
}

template <bool kLargest>
Value extreme_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  const ValueList given = bind(kLargest ? "max" : "min", arguments, {"case_sensitive", "attribute"});
  Heap& heap = run.heap();
  const ValueList path = attribute_path(heap, given[1]);
  const auto walk = iterate(heap, input);
  Value best;
  Value best_key;
  for (Value item; walk->advance(item);) {
    Value key = follow(run, item, path);
    if (!flag(given[0])) key = ignore_case(heap, key);
    if (!best.is_missing() && !compare(heap, kLargest ? CompareOp::kGt : CompareOp::kLt, key, best_key))
      continue;
    best = item;
    best_key = key;
  }
  return best.is_missing() ? run.heap().undefined("No aggregated item, sequence was empty.") : best;
}

Value sum_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  const ValueList given = bind("sum", arguments, {"attribute", "start"});
  Heap& heap = run.heap();
  const ValueList path = attribute_path(heap, given[0]);
  Value total = given[1].is_missing() ? Value::integer(0) : given[1];
  if (total.is_string()) fail("sum() can't sum strings [use ''.join(seq) instead]");
  const auto walk = iterate(heap, input);
  for (Value item; walk->advance(item);) total = binary(heap, BinaryOp::kAdd, total, follow(run, item, path));
  return total;
}

Value items_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  bind("items", arguments, {});
  Heap& heap = run.heap();
  return heap.iterator("generator", [&heap, input, i = size_t{0}](Value& item) mutable {
    heap.step();
    if (input.is_undefined()) return false;
    if (!input.is(Kind::kDict)) fail("Can only get item pairs from a mapping.");
    const auto& entries = input.as<DictObject>().entries;
    if (i >= entries.size()) return false;
    item = heap.tuple({entries[i].first, entries[i].second});
    ++i;
    return true;
  });
}

// Both give lists of a few items each; the last ones are filled up when there is something to fill with.
Value batch_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  const ValueList given = bind("batch", arguments, {"linecount", "fill_with"}, 1);
  Heap& heap = run.heap();
  const Value& fill = given[1];
  ValueList batches;
  ValueList batch;
  double wanted = 0;
  if (!to_double(given[0], wanted)) wanted = -1;
  const auto walk = iterate(heap, input);
  for (Value item; walk->advance(item);) {
    if (static_cast<double>(batch.size()) == wanted) batches.push_back(heap.list(std::exchange(batch, {})));
    batch.push_back(std::move(item));
  }
  if (!batch.empty()) {
    if (!fill.is_missing() && !fill.is_none() &&
        want_int("batch", given[0]) > static_cast<int64_t>(batch.size())) {
      const auto size = static_cast<size_t>(given[0].as_int());
      heap.step(size);
      batch.resize(size, fill);
    }
    batches.push_back(heap.list(std::move(batch)));
  }
  return walk_over(heap, "generator", std::move(batches));
}

Value slice_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  const ValueList given = bind("slice", arguments, {"slices", "fill_with"}, 1);
  Heap& heap = run.heap();
  const ValueList items = to_list(heap, input);
  const int64_t slices = want_int("slice", given[0]);
  if (slices == 0) fail("integer division or modulo by zero");
  ValueList out;
  const auto length = static_cast<int64_t>(items.size());
  size_t at = 0;
  for (int64_t i = 0; i < slices; ++i) {
    heap.step();
    const auto size = static_cast<size_t>(length / slices + (i < length % slices ? 1 : 0));
    const auto begin = items.begin() + static_cast<std::ptrdiff_t>(at);
    ValueList part(begin, begin + static_cast<std::ptrdiff_t>(size));
    at += size;
    if (!given[1].is_missing() && !given[1].is_none() && i >= length % slices) part.push_back(given[1]);
    out.push_back(heap.list(std::move(part)));
  }
  return walk_over(heap, "generator", std::move(out));
}

Value groupby_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  const ValueList given = bind("groupby", arguments, {"attribute", "default", "case_sensitive"}, 1);
  Heap& heap = run.heap();
  const ValueList path = attribute_path(heap, given[0]);
  const auto key_of = [&](const Value& item) {
    const Value key = follow(run, item, path, given[1]);
    return flag(given[2]) ? key : ignore_case(heap, key);
  };
  const ValueList items = to_list(heap, input);
  ValueList keys;
  for (const Value& item : items) keys.push_back(key_of(item));
  ValueList groups;
  ValueList group;
  Value group_key;
  const auto finish = [&] {
    if (group.empty()) return;
    const Value name = flag(given[2]) ? group_key : follow(run, group[0], path, given[1]);
    Value pair = heap.tuple({name, heap.list(std::exchange(group, {}))});
    pair.as<ListObject>().group = true;
    groups.push_back(std::move(pair));
  };
  for (const Value& item : sorted_by(heap, items, keys, false)) {
    Value key = key_of(item);
    if (!group.empty() && !equals(heap, key, group_key)) finish();
    group_key = std::move(key);
    group.push_back(item);
  }
  finish();
  return heap.list(std::move(groups));
}

constexpr NamedFilter kTable[] = {
    {"batch", batch_filter},     {"dictsort", dictsort_filter}, {"first", first_filter},
    {"groupby", groupby_filter}, {"items", items_filter},       {"last", last_filter},
    {"list", list_filter},       {"max", extreme_filter<true>}, {"min", extreme_filter<false>},
    {"reverse", reverse_filter}, {"slice", slice_filter},       {"sort", sort_filter},
    {"sum", sum_filter},         {"unique", unique_filter},
};

}  // namespace

FilterSpan sequence_filters() {
  return {std::begin(kTable), std::end(kTable)};
}

}  // namespace fathom::text::jinja

// map, select and their kin. All work item by item as their result is walked.
#include "text/template/filters.h"
#include "text/template/item_lookup.h"

namespace fathom::text::jinja {
namespace {

struct Work {
  Value input;
  Arguments arguments;  // without what is taken apart below
  Value name;           // of a filter or test; missing: take the value itself
  ValueList path;
  Value fallback;
  std::shared_ptr<IteratorObject> source;
  bool started = false;
};

// The next item of the input, which may be anything that counts as false.
bool next_item(Interpreter& run, Work& work, Value& item) {
  if (!work.started) {
    work.started = true;
    if (truthy(work.input)) work.source = iterate(run.heap(), work.input);
  }
  run.heap().step();
  return work.source != nullptr && work.source->advance(item);
}

Value map_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  auto work = std::make_shared<Work>();
  work->input = input;
  work->arguments = arguments;
  return run.heap().iterator("generator", [&run, work](Value& item) {
    Value each;
    const bool first = !work->started;
    if (!next_item(run, *work, each)) return false;
    Arguments& given = work->arguments;
    if (first) {
      if (given.positional.empty()) {
        const ValueList bound = bind("map", given, {"attribute", "default"});
        if (bound[0].is_missing()) fail("map requires a filter argument");
        work->path = attribute_path(run.heap(), bound[0]);
        work->fallback = bound[1];
      } else {
        work->name = given.positional[0];
        given.positional.erase(given.positional.begin());
      }
    }
    item = work->name.is_missing() ? follow(run, std::move(each), work->path, work->fallback)
                                   : run.apply_filter(work->name, each, given);
    return true;
  });
}

template <bool kByAttribute, bool kKeep>
Value select_filter(Interpreter& run, const Value& input, const Arguments& arguments) {
  auto work = std::make_shared<Work>();
  work->input = input;
  work->arguments = arguments;
  return run.heap().iterator("generator", [&run, work](Value& item) {
    for (;;) {
      const bool first = !work->started;
      if (!next_item(run, *work, item)) return false;
      ValueList& given = work->arguments.positional;
      if (first) {
        if (kByAttribute) {
          if (given.empty()) fail("Missing parameter for attribute name");
          work->path = attribute_path(run.heap(), given[0]);
          given.erase(given.begin());
        }
        if (!given.empty()) {
          work->name = given[0];
          given.erase(given.begin());
        }
      }
      const Value value = kByAttribute ? follow(run, item, work->path) : item;
      const bool passed =
          work->name.is_missing() ? truthy(value) : run.apply_test(work->name, value, work->arguments);
      if (passed == kKeep) return true;
    }
  });
}

constexpr NamedFilter kTable[] = {
    {"map", map_filter},
    {"reject", select_filter<false, false>},
    {"rejectattr", select_filter<true, false>},
    {"select", select_filter<false, true>},
    {"selectattr", select_filter<true, true>},
};

}  // namespace

FilterSpan selection_filters() {
  return {std::begin(kTable), std::end(kTable)};
}

}  // namespace fathom::text::jinja

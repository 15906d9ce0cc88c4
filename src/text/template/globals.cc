// The functions every template finds.
#include <ctime>

#include "text/template/interpreter.h"
#include "text/template/printing.h"

namespace fathom::text::jinja {
namespace {

constexpr int64_t kMaxRange = 100'000;

Value range_function(Interpreter&, const Value&, const Arguments& arguments) {
  if (!arguments.named.empty()) fail("range() takes no keyword arguments");
  const ValueList bound = bind("range", arguments, {"start", "stop", "step"}, 1);
  const bool one = bound[1].is_missing();
  const int64_t start = one ? 0 : want_int("range", bound[0]);
  const int64_t stop = want_int("range", bound[one ? 0 : 1]);
  const int64_t step = bound[2].is_missing() ? 1 : want_int("range", bound[2]);
  if (step == 0) fail("range() arg 3 must not be zero");
  const auto distance = step > 0 ? static_cast<__int128>(stop) - start : static_cast<__int128>(start) - stop;
  const auto stride = step > 0 ? static_cast<__int128>(step) : -static_cast<__int128>(step);
  const __int128 count = distance <= 0 ? 0 : (distance + stride - 1) / stride;
  if (count > kMaxRange) fail("Range too big. The sandbox blocks ranges larger than {}.", kMaxRange);
  auto range = std::make_shared<RangeObject>();
  range->start = start;
  range->stop = stop;
  range->step = step;
  range->count = static_cast<int64_t>(count);
  return Value(Kind::kRange, std::move(range));
}

std::shared_ptr<DictObject> make_dict(Interpreter& run, const Arguments& arguments) {
  Heap& heap = run.heap();
  if (arguments.positional.size() > 1) fail("dict expected at most 1 argument");
  auto dict = heap.dict();
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (source.is(Kind::kDict)) {
      for (const auto& [key, value] : source.as<DictObject>().entries) dict->set(key, value);
    } else {
      const auto walk = iterate(heap, source);
      for (Value item; walk->advance(item);) {
        const ValueList pair = to_list(heap, item);
        if (pair.size() != 2)
          fail("dictionary update sequence element has length {}; 2 is required", pair.size());
        dict->set(pair[0], pair[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.named) dict->set(heap.string(name), value);
  return dict;
}

Value dict_function(Interpreter& run, const Value&, const Arguments& arguments) {
  return dict_value(make_dict(run, arguments));
}

Value namespace_function(Interpreter& run, const Value&, const Arguments& arguments) {
  auto attributes = make_dict(run, arguments);
  for (const auto& [key, value] : attributes->entries) {
    if (key.is_string() && key.text().starts_with("_"))
      fail("namespace attributes must not start with an underscore");
  }
  auto object = std::make_shared<NamespaceObject>(&run.heap());
  object->attributes = std::move(attributes);
  return Value(Kind::kNamespace, std::move(object));
}

Value cycler_function(Interpreter& run, const Value&, const Arguments& arguments) {
  if (!arguments.named.empty()) fail("cycler() takes no keyword arguments");
  if (arguments.positional.empty()) fail("at least one item has to be provided");
  return Value(Kind::kCycler, std::make_shared<CyclerObject>(&run.heap(), arguments.positional));
}

// Its state is a cycler: nothing the first time, and then always the separator.
Value joiner_function(Interpreter& run, const Value&, const Arguments& arguments) {
  const ValueList bound = bind("joiner", arguments, {"sep"});
  ValueList values{run.heap().string(""), bound[0].is_missing() ? run.heap().string(", ") : bound[0]};
  auto state = std::make_shared<CyclerObject>(&run.heap(), std::move(values));
  return function_value("joiner", Value(Kind::kCycler, std::move(state)),
                        [](Interpreter&, const Value& self, const Arguments& none) -> Value {
                          bind("joiner", none, {});
                          auto& cycler = self.as<CyclerObject>();
                          Value value = cycler.values[cycler.position];
                          cycler.position = 1;
                          return value;
                        });
}

Value raise_function(Interpreter& run, const Value&, const Arguments& arguments) {
  const ValueList bound = bind("raise_exception", arguments, {"message"}, 1);
  throw Failure{.message = str(run.heap(), bound[0]), .by_request = true};
}

Value strftime_function(Interpreter& run, const Value&, const Arguments& arguments) {
  const ValueList bound = bind("strftime_now", arguments, {"format"}, 1);
  if (!bound[0].is_string()) fail("strftime_now() needs a format, not {}", type_name(bound[0]));
  constexpr size_t kMaxFormat = 1000;
  // One character more than asked for: strftime answers 0 for an empty result as for a full buffer.
  const std::string format = bound[0].text() + " ";
  if (format.size() > kMaxFormat) fail("the format of strftime_now() is longer than {} bytes", kMaxFormat);
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char buffer[64 * kMaxFormat];
  const size_t size = std::strftime(buffer, sizeof buffer, format.c_str(), &local);
  if (size == 0) fail("the format of strftime_now() gives too much text");
  return run.heap().string(std::string(buffer, size - 1));
}

}  // namespace

Value global_function(const std::string& name) {
  constexpr std::pair<const char*, NativeFunction> kFunctions[] = {
      {"range", range_function},           {"dict", dict_function},     {"namespace", namespace_function},
      {"cycler", cycler_function},         {"joiner", joiner_function}, {"raise_exception", raise_function},
      {"strftime_now", strftime_function},
  };
  for (const auto& [known, function] : kFunctions) {
    if (name == known) return function_value(name, Value(), function);
  }
  return Value();
}

}  // namespace fathom::text::jinja

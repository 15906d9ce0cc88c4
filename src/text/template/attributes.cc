// What `.name` and `[key]` find, in Jinja's order, and the methods of everything but text.
#include <algorithm>
#include <bit>
#include <cmath>

#include "text/template/interpreter.h"
#include "text/template/unicode.h"

namespace fathom::text::jinja {
namespace {

void no_names(const char* method, const Arguments& arguments) {
  if (!arguments.named.empty()) fail("{}() takes no keyword arguments", method);
}

Value dict_get(Interpreter&, const Value& self, const Arguments& arguments) {
  no_names("get", arguments);
  const ValueList bound = bind("get", arguments, {"key", "default"}, 1);
  const Value* found = self.as<DictObject>().find(bound[0]);
  if (found != nullptr) return *found;
  return bound[1].is_missing() ? Value::none() : bound[1];
}

template <DictViewObject::What kWhat>
Value dict_view(Interpreter&, const Value& self, const Arguments& arguments) {
  bind("dict view", arguments, {});
  auto view = std::make_shared<DictViewObject>();
  view->what = kWhat;
  view->dict = std::static_pointer_cast<DictObject>(self.object());
  return Value(Kind::kDictView, std::move(view));
}

// Values do not change, so a copy is the value itself.
Value return_self(Interpreter&, const Value& self, const Arguments& arguments) {
  bind("copy", arguments, {});
  return self;
}

Value sequence_count(Interpreter& run, const Value& self, const Arguments& arguments) {
  no_names("count", arguments);
  const ValueList bound = bind("count", arguments, {"value"}, 1);
  int64_t count = 0;
  const auto walk = iterate(run.heap(), self);
  for (Value item; walk->advance(item);)
    count += identical(item, bound[0]) || equals(run.heap(), item, bound[0]);
  return Value::integer(count);
}

Value sequence_index(Interpreter& run, const Value& self, const Arguments& arguments) {
  no_names("index", arguments);
  const ValueList bound = bind("index", arguments, {"value", "start", "stop"}, 1);
  const int64_t length = length_of(self);
  const auto limit = [&](const Value& value, int64_t absent) {
    if (value.is_missing()) return absent;
    const int64_t i = want_int("index", value);
    return i < 0 ? std::max<int64_t>(i + length, 0) : i;
  };
  const int64_t start = limit(bound[1], 0);
  const int64_t stop = limit(bound[2], length);
  const auto walk = iterate(run.heap(), self);
  int64_t at = 0;
  for (Value item; walk->advance(item); ++at) {
    if (at < start || at >= stop) continue;
    if (identical(item, bound[0]) || equals(run.heap(), item, bound[0])) return Value::integer(at);
  }
  fail("the value is not in the {}", type_name(self));
}

Value bit_length(Interpreter&, const Value& self, const Arguments& arguments) {
  bind("bit_length", arguments, {});
  const auto magnitude = static_cast<uint64_t>(self.as_int() < 0 ? -self.as_int() : self.as_int());
  return Value::integer(std::bit_width(magnitude));
}
Value is_integer(Interpreter&, const Value& self, const Arguments& arguments) {
  bind("is_integer", arguments, {});
  return Value::boolean(std::isfinite(self.as_float()) && self.as_float() == std::floor(self.as_float()));
}

Value cycler_next(Interpreter&, const Value& self, const Arguments& arguments) {
  bind("next", arguments, {});
  auto& cycler = self.as<CyclerObject>();
  Value value = cycler.values[cycler.position];
  cycler.position = (cycler.position + 1) % cycler.values.size();
  return value;
}
Value cycler_reset(Interpreter&, const Value& self, const Arguments& arguments) {
  bind("reset", arguments, {});
  self.as<CyclerObject>().position = 0;
  return Value::none();
}

bool any_of(const std::string& name, std::initializer_list<const char*> names) {
  return std::any_of(names.begin(), names.end(), [&](const char* other) { return name == other; });
}

Value unsafe(Heap& heap, const Value& object, const std::string& name) {
  return heap.undefined(
      fmt::format("access to attribute '{}' of '{}' object is unsafe.", name, type_name(object)));
}

Value dict_attribute(Heap& heap, const Value& object, const std::string& name) {
  if (name == "get") return function_value(name, object, dict_get);
  if (name == "items") return function_value(name, object, dict_view<DictViewObject::What::kItems>);
  if (name == "keys") return function_value(name, object, dict_view<DictViewObject::What::kKeys>);
  if (name == "values") return function_value(name, object, dict_view<DictViewObject::What::kValues>);
  if (name == "copy") return function_value(name, object, return_self);
  if (any_of(name, {"clear", "pop", "popitem", "setdefault", "update", "fromkeys"}))
    return unsafe(heap, object, name);
  if (any_of(name,
             {"__class__", "__doc__", "__dir__", "__init__", "__new__", "__hash__", "__len__", "__iter__",
              "__getitem__", "__setitem__", "__contains__", "__repr__", "__str__", "__eq__"})) {
    return unsafe(heap, object, name);
  }
  return Value();
}

Value sequence_attribute(Heap& heap, const Value& object, const std::string& name) {
  if (name == "count") return function_value(name, object, sequence_count);
  if (name == "index") return function_value(name, object, sequence_index);
  if (object.is(Kind::kList)) {
    if (name == "copy") return function_value(name, object, return_self);
    if (any_of(name, {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"})) {
      return unsafe(heap, object, name);
    }
  } else if (object.is(Kind::kTuple) && object.as<ListObject>().group) {
    if (name == "grouper") return object.items()[0];
    if (name == "list") return object.items()[1];
  } else if (object.is(Kind::kRange)) {
    const auto& range = object.as<RangeObject>();
    if (name == "start") return Value::integer(range.start);
    if (name == "step") return Value::integer(range.step);
  }
  return Value();
}

Value number_attribute(const Value& object, const std::string& name) {
  if (name == "real") return positive(object);
  if (name == "imag") return object.is(Kind::kFloat) ? Value::number(0) : Value::integer(0);
  if (object.is(Kind::kFloat))
    return name == "is_integer" ? function_value(name, object, is_integer) : Value();
  if (name == "numerator") return positive(object);
  if (name == "denominator") return Value::integer(1);
  if (name == "bit_length") return function_value(name, object, bit_length);
  return Value();
}

Value cycler_attribute(const Value& object, const std::string& name) {
  const auto& cycler = object.as<CyclerObject>();
  if (name == "next") return function_value(name, object, cycler_next);
  if (name == "reset") return function_value(name, object, cycler_reset);
  if (name == "current") return cycler.values[cycler.position];
  return Value();
}

const char* object_name(const Value& object) {
  return object.is_none() ? "None" : type_name(object);
}

}  // namespace

Value function_value(std::string name, Value self, NativeFunction function) {
  return Value(Kind::kFunction, std::make_shared<FunctionObject>(std::move(name), std::move(self), function));
}

Value native_attribute(Interpreter& run, const Value& object, const std::string& name) {
  switch (object.kind()) {
    case Kind::kString:
      if (const NativeFunction method = find_string_method(name)) return function_value(name, object, method);
      return Value();
    case Kind::kDict:
      return dict_attribute(run.heap(), object, name);
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kRange:
      return sequence_attribute(run.heap(), object, name);
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
      return number_attribute(object, name);
    case Kind::kNamespace: {
      const Value* found = object.as<NamespaceObject>().attributes->find(name);
      return found == nullptr ? Value() : *found;
    }
    case Kind::kLoop:
      return object.as<LoopObject>().attribute(object, name);
    case Kind::kCycler:
      return cycler_attribute(object, name);
    case Kind::kMacro:
      if (name == "name") return Value::constant(object.as<MacroObject>().statement.name);
      return Value();
    default:
      return Value();
  }
}

Value Interpreter::attribute(const Value& object, const std::string& name) {
  if (object.is_undefined()) fail("{}", object.as<UndefinedObject>().message);
  Value value = native_attribute(*this, object, name);
  if (!value.is_missing()) return value;
  if (object.is(Kind::kDict)) {
    if (const Value* found = object.as<DictObject>().find(name)) return *found;
  }
  return heap_.undefined(fmt::format("'{} object' has no attribute '{}'", object_name(object), name));
}

Value Interpreter::item(const Value& object, const Value& key) {
  switch (object.kind()) {
    case Kind::kUndefined:
      fail("{}", object.as<UndefinedObject>().message);
    case Kind::kDict:
      if (key.is_string()) {
        if (const Value* found = object.as<DictObject>().find(key.text())) return *found;
      } else if (is_hashable(heap_, key)) {
        if (const Value* found = object.as<DictObject>().find(key)) return *found;
      }
      break;
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kString:
    case Kind::kRange: {
      if (!key.is_integral()) break;
      const int64_t length = length_of(object);
      const int64_t i = key.as_int() < 0 ? key.as_int() + length : key.as_int();
      if (i < 0 || i >= length) break;
      if (object.is_sequence()) return object.items()[static_cast<size_t>(i)];
      if (object.is(Kind::kRange)) {
        const auto& range = object.as<RangeObject>();
        return Value::integer(range.start + range.step * i);
      }
      const auto& text = object.as<StringObject>();
      if (!text.ascii()) heap_.step_bytes(text.text.size());
      const size_t at = text.ascii() ? static_cast<size_t>(i) : offset_of(text.text, i);
      return heap_.string(text.text.substr(at, code_point_size(text.text, at)), text.markup);
    }
    default:
      break;
  }
  if (!key.is_string())
    return heap_.undefined(std::string(object_name(object)) + " object has no such element");
  Value value = native_attribute(*this, object, key.text());
  if (!value.is_missing()) return value;
  return heap_.undefined(fmt::format("'{} object' has no attribute '{}'", object_name(object), key.text()));
}

}  // namespace fathom::text::jinja

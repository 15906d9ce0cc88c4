// The data of a render: JSON to values, each variable when it is first looked up.
#include <nlohmann/json.hpp>

#include "text/template/interpreter.h"

namespace fathom::text::jinja {

Value from_json(Heap& heap, const nlohmann::ordered_json& json) {
  heap.step();
  using Type = nlohmann::ordered_json::value_t;
  switch (json.type()) {
    case Type::boolean:
      return Value::boolean(json.get<bool>());
    case Type::number_integer:
      return Value::integer(json.get<int64_t>());
    case Type::number_unsigned:
      return Value::big_integer(json.get<uint64_t>());
    case Type::number_float:
      return Value::number(json.get<double>());
    case Type::string:
      return heap.string(json.get_ref<const std::string&>());
    case Type::array: {
      const Heap::Depth depth(heap);
      ValueList items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(from_json(heap, item));
      return heap.list(std::move(items));
    }
    case Type::object: {
      const Heap::Depth depth(heap);
      auto dict = heap.dict();
      for (const auto& [key, item] : json.items()) dict->set(heap.string(key), from_json(heap, item));
      return dict_value(std::move(dict));
    }
    default:
      return Value::none();
  }
}

Value Interpreter::resolve(const std::string& name) {
  if (const auto it = resolved_.find(name); it != resolved_.end()) return it->second;
  const auto it = variables_.find(name);
  Value value = it != variables_.end() ? from_json(heap_, *it) : global_function(name);
  return resolved_[name] = std::move(value);
}

}  // namespace fathom::text::jinja

// Walking values, and their lengths.
#include "text/template/unicode.h"
#include "text/template/value.h"

namespace fathom::text::jinja {

Value dict_view_item(Heap& heap, const DictViewObject& view, size_t i) {
  const auto& [key, value] = view.dict->entries[i];
  switch (view.what) {
    case DictViewObject::What::kKeys:
      return key;
    case DictViewObject::What::kValues:
      return value;
    case DictViewObject::What::kItems:
      break;
  }
  return heap.tuple({key, value});
}

bool is_iterable(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kString:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict:
    case Kind::kDictView:
    case Kind::kRange:
    case Kind::kIterator:
      return true;
    default:
      return false;
  }
}

std::shared_ptr<IteratorObject> iterate(Heap& heap, const Value& value) {
  const auto make = [&heap](const char* type, std::function<bool(Value&)> next) {
    return std::make_shared<IteratorObject>(&heap, type, std::move(next));
  };
  switch (value.kind()) {
    case Kind::kUndefined:
      return make("generator", [](Value&) { return false; });
    case Kind::kIterator:
      return std::static_pointer_cast<IteratorObject>(value.object());
    case Kind::kString:
      return make("str_iterator", [&heap, value, at = size_t{0}](Value& item) mutable {
        const std::string& text = value.text();
        if (at >= text.size()) return false;
        const size_t size = code_point_size(text, at);
        item = heap.string(text.substr(at, size));
        at += size;
        return true;
      });
    case Kind::kList:
    case Kind::kTuple:
      return make("list_iterator", [&heap, value, i = size_t{0}](Value& item) mutable {
        heap.step();
        if (i >= value.items().size()) return false;
        item = value.items()[i++];
        return true;
      });
    case Kind::kDict:
      return make("dict_keyiterator", [&heap, value, i = size_t{0}](Value& item) mutable {
        heap.step();
        const auto& entries = value.as<DictObject>().entries;
        if (i >= entries.size()) return false;
        item = entries[i++].first;
        return true;
      });
    case Kind::kDictView:
      return make("dict_itemiterator", [&heap, value, i = size_t{0}](Value& item) mutable {
        heap.step();
        const auto& view = value.as<DictViewObject>();
        if (i >= view.dict->entries.size()) return false;
        item = dict_view_item(heap, view, i++);
        return true;
      });
    case Kind::kRange:
      return make("range_iterator", [&heap, value, i = int64_t{0}](Value& item) mutable {
        heap.step();
        const auto& range = value.as<RangeObject>();
        if (i >= range.count) return false;
        item = Value::integer(range.start + range.step * i++);
        return true;
      });
    default:
      fail("'{}' object is not iterable", type_name(value));
  }
}

ValueList to_list(Heap& heap, const Value& value) {
  if (value.is_sequence()) {
    heap.step(value.items().size());
    return value.items();
  }
  ValueList items;
  const auto walk = iterate(heap, value);
  for (Value item; walk->advance(item);) items.push_back(std::move(item));
  return items;
}

int64_t length_of(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      return value.as<StringObject>().length;
    case Kind::kList:
    case Kind::kTuple:
      return static_cast<int64_t>(value.items().size());
    case Kind::kDict:
      return static_cast<int64_t>(value.as<DictObject>().entries.size());
    case Kind::kDictView:
      return static_cast<int64_t>(value.as<DictViewObject>().dict->entries.size());
    case Kind::kRange:
      return value.as<RangeObject>().count;
    default:
      return -1;
  }
}

}  // namespace fathom::text::jinja

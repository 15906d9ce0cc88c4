#include "text/template/value.h"

#include "base/random.h"
#include "text/template/operators.h"

namespace fathom::text::jinja {
namespace {

// What a dict entry costs besides the values it refers to.
constexpr size_t kEntryBytes = sizeof(std::pair<Value, Value>) + 48;
// Small dicts are searched without an index.
constexpr size_t kIndexFrom = 12;

int64_t count_code_points(const std::string& text) {
  int64_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return count;
}

}  // namespace

Value Value::constant(std::string text) {
  return Value(Kind::kString, std::make_shared<StringObject>(nullptr, std::move(text), false));
}

const std::string& Value::text() const {
  return as<StringObject>().text;
}
const ValueList& Value::items() const {
  return as<ListObject>().items;
}

UndefinedObject::UndefinedObject(Heap* heap, std::string message) : message(std::move(message)), heap(heap) {
  heap->grow(sizeof(UndefinedObject) + this->message.size());
}
UndefinedObject::~UndefinedObject() {
  heap->shrink(sizeof(UndefinedObject) + message.size());
}

StringObject::StringObject(Heap* heap, std::string text, bool markup)
    : text(std::move(text)), markup(markup), heap(heap) {
  if (heap != nullptr) heap->grow(sizeof(StringObject) + this->text.size());
  length = count_code_points(this->text);
}
StringObject::~StringObject() {
  if (heap != nullptr) heap->shrink(sizeof(StringObject) + text.size());
}

ListObject::ListObject(Heap* heap, ValueList items) : items(std::move(items)), heap(heap) {
  heap->grow(sizeof(ListObject) + this->items.size() * sizeof(Value));
}
ListObject::~ListObject() {
  heap->shrink(sizeof(ListObject) + items.size() * sizeof(Value));
  heap->bury(std::move(items));
}

DictObject::~DictObject() {
  if (heap == nullptr) return;
  heap->shrink(entries.size() * kEntryBytes);
  ValueList values;
  values.reserve(2 * entries.size());
  for (auto& [key, value] : entries) {
    values.push_back(std::move(key));
    values.push_back(std::move(value));
  }
  heap->bury(std::move(values));
}

size_t DictObject::find_index(const Value& key, uint64_t hash) const {
  if (entries.size() < kIndexFrom) {
    for (size_t i = 0; i < entries.size(); ++i) {
      if (equals(*heap, entries[i].first, key)) return i;
    }
    return entries.size();
  }
  auto [begin, end] = index_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    heap->step();
    if (equals(*heap, entries[it->second].first, key)) return it->second;
  }
  return entries.size();
}

const Value* DictObject::find(const Value& key) const {
  if (heap == nullptr) return nullptr;
  const uint64_t hash = hash_of(*heap, key);
  const size_t i = find_index(key, hash);
  return i < entries.size() ? &entries[i].second : nullptr;
}

const Value* DictObject::find(std::string_view key) const {
  if (entries.size() < kIndexFrom) {
    for (const auto& entry : entries) {
      if (entry.first.is_string() && entry.first.text() == key) return &entry.second;
    }
    return nullptr;
  }
  return find(heap->string(key));
}

void DictObject::set(const Value& key, Value value) {
  const uint64_t hash = hash_of(*heap, key);
  const size_t i = find_index(key, hash);
  if (i < entries.size()) {
    entries[i].second = std::move(value);
    return;
  }
  heap->grow(kEntryBytes);
  entries.emplace_back(key, std::move(value));
  if (entries.size() < kIndexFrom) return;
  if (entries.size() == kIndexFrom) {
    for (size_t k = 0; k + 1 < entries.size(); ++k) index_.emplace(hash_of(*heap, entries[k].first), k);
  }
  index_.emplace(hash, entries.size() - 1);
}

MutableObject::MutableObject(Heap* heap) : heap(heap), next_(heap->first_) {
  heap->grow(sizeof(Frame));
  if (next_ != nullptr) next_->previous_ = this;
  heap->first_ = this;
}
MutableObject::~MutableObject() {
  heap->shrink(sizeof(Frame));
  unlink();
}
void MutableObject::unlink() {
  if (!linked_) return;
  linked_ = false;
  (previous_ != nullptr ? previous_->next_ : heap->first_) = next_;
  if (next_ != nullptr) next_->previous_ = previous_;
}

bool IteratorObject::advance(Value& item) {
  const Heap::Depth depth(*heap);  // iterators walk others
  return next && next(item);
}

void IteratorObject::drop_references() {
  // What the walk held may be the last owner of a long chain of iterators.
  struct Held : Object {
    std::function<bool(Value&)> next;
  };
  if (!next) return;
  auto held = std::make_shared<Held>();
  held->next = std::move(next);
  next = nullptr;
  ValueList grave;
  grave.emplace_back(Kind::kFunction, std::move(held));
  heap->bury(std::move(grave));
}

void CyclerObject::drop_references() {
  heap->bury(std::move(values));
  values.clear();
}

void Frame::drop_references() {
  ValueList grave = std::move(slots);
  slots.clear();
  if (parent != nullptr) grave.emplace_back(Kind::kFunction, std::move(parent));
  heap->bury(std::move(grave));
}

Heap::~Heap() {
  while (first_ != nullptr) {
    MutableObject* object = first_;
    object->unlink();
    object->drop_references();
  }
}

void Heap::grow(size_t bytes) {
  if (bytes > limits_.max_memory_bytes - std::min(alive_, limits_.max_memory_bytes)) {
    fail("the template needs more memory than the limit max_memory_bytes ({})", limits_.max_memory_bytes);
  }
  alive_ += bytes;
}

void Heap::fail_steps() const {
  fail("the template takes more steps than the limit max_steps ({})", limits_.max_steps);
}
void Heap::fail_text() const {
  fail("the template makes text longer than the limit max_output_bytes ({})", limits_.max_output_bytes);
}
void Heap::fail_depth() const {
  fail("the template nests deeper than the limit max_depth ({})", limits_.max_depth);
}

void Heap::bury(ValueList&& values) {
  if (values.empty()) return;
  graves_.push_back(std::move(values));
  if (burying_) return;
  burying_ = true;
  while (!graves_.empty()) {
    ValueList grave = std::move(graves_.back());
    graves_.pop_back();
    grave.clear();
  }
  burying_ = false;
}

Value Heap::string(std::string text, bool markup) {
  check_text(text.size());
  step_bytes(text.size());
  return Value(Kind::kString, std::make_shared<StringObject>(this, std::move(text), markup));
}
Value Heap::undefined(std::string message) {
  return Value(Kind::kUndefined, std::make_shared<UndefinedObject>(this, std::move(message)));
}
Value Heap::list(ValueList items) {
  return Value(Kind::kList, std::make_shared<ListObject>(this, std::move(items)));
}
Value Heap::tuple(ValueList items) {
  return Value(Kind::kTuple, std::make_shared<ListObject>(this, std::move(items)));
}
Value Heap::iterator(const char* type, std::function<bool(Value&)> next) {
  return Value(Kind::kIterator, std::make_shared<IteratorObject>(this, type, std::move(next)));
}

const char* type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::kMissing:
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
    case Kind::kBigInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return value.as<StringObject>().markup ? "Markup" : "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kDict:
      return "dict";
    case Kind::kDictView: {
      const auto what = value.as<DictViewObject>().what;
      if (what == DictViewObject::What::kKeys) return "dict_keys";
      return what == DictViewObject::What::kValues ? "dict_values" : "dict_items";
    }
    case Kind::kRange:
      return "range";
    case Kind::kIterator:
      return value.as<IteratorObject>().type;
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kFunction:
      return "function";
    case Kind::kMacro:
      return "Macro";
    case Kind::kLoop:
      return "LoopContext";
    case Kind::kCycler:
      return "Cycler";
  }
  return "object";
}

bool truthy(const Value& value) {
  switch (value.kind()) {
    case Kind::kMissing:
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kBigInt:
      return value.as_int() != 0;
    case Kind::kFloat:
      return value.as_float() != 0;
    default:
      return length_of(value) != 0;  // -1, no length: true
  }
}

}  // namespace fathom::text::jinja

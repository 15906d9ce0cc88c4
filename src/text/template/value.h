// Values of a rendering template: Python's, as far as a template can tell. A Value is a small tagged handle;
// text and containers are shared, immutable objects. The only mutable ones are namespaces, variable frames,
// loops, iterators, cyclers and joiners.
//
// Everything alive is charged to the Heap of its render. Constants of a parsed template belong to no heap and
// are shared by renders on many threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/template/failure.h"
#include "text/template/render_limits.h"

namespace fathom::text::jinja {

enum class Kind : uint8_t {
  kMissing,    // no value: an absent argument, a name never set. Never seen by a template.
  kUndefined,  // Undefined, with the message that using it fails with
  kNone,
  kBool,
  kInt,
  kBigInt,  // an integer of the data in (2^63, 2^64): can be compared and printed, not calculated with
  kFloat,
  kString,
  kList,
  kTuple,
  kDict,
  kDictView,  // keys(), values(), items()
  kRange,
  kIterator,  // a generator: can be walked once
  kNamespace,
  kFunction,  // anything that can be called and nothing else
  kMacro,
  kLoop,
  kCycler,
};

class Value;
class Heap;
using ValueList = std::vector<Value>;

struct Object {
  virtual ~Object() = default;
};

class Value {
 public:
  Value() = default;
  static Value none() { return Value(Kind::kNone); }
  static Value boolean(bool b) {
    Value v(Kind::kBool);
    v.int_ = b;
    return v;
  }
  static Value integer(int64_t i) {
    Value v(Kind::kInt);
    v.int_ = i;
    return v;
  }
  static Value big_integer(uint64_t i) {
    if (i <= static_cast<uint64_t>(INT64_MAX)) return integer(static_cast<int64_t>(i));
    Value v(Kind::kBigInt);
    v.int_ = static_cast<int64_t>(i);
    return v;
  }
  static Value number(double d) {
    Value v(Kind::kFloat);
    v.float_ = d;
    return v;
  }
  static Value constant(std::string text);  // of no heap
  Value(Kind kind, std::shared_ptr<Object> object) : kind_(kind), object_(std::move(object)) {}

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_missing() const { return kind_ == Kind::kMissing; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_none() const { return kind_ == Kind::kNone; }
  bool is_string() const { return kind_ == Kind::kString; }
  bool is_integral() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }
  bool is_sequence() const { return kind_ == Kind::kList || kind_ == Kind::kTuple; }

  int64_t as_int() const { return int_; }  // kInt and kBool
  uint64_t as_big_int() const { return static_cast<uint64_t>(int_); }
  double as_float() const { return float_; }
  const std::string& text() const;  // kString
  const ValueList& items() const;   // kList, kTuple

  template <class T>
  T& as() const {
    return static_cast<T&>(*object_);
  }
  const std::shared_ptr<Object>& object() const { return object_; }

 private:
  explicit Value(Kind kind) : kind_(kind) {}

  Kind kind_ = Kind::kMissing;
  union {
    int64_t int_ = 0;
    double float_;
  };
  std::shared_ptr<Object> object_;
};

struct UndefinedObject : Object {
  UndefinedObject(Heap* heap, std::string message);
  ~UndefinedObject() override;
  std::string message;
  Heap* heap;
};

struct StringObject : Object {
  StringObject(Heap* heap, std::string text, bool markup);
  ~StringObject() override;

  std::string text;    // UTF-8
  int64_t length = 0;  // code points
  bool markup;         // already escaped for HTML: `safe` and `escape` make these
  Heap* heap;

  bool ascii() const { return length == static_cast<int64_t>(text.size()); }
};

struct ListObject : Object {  // lists and tuples
  ListObject(Heap* heap, ValueList items);
  ~ListObject() override;
  ValueList items;
  Heap* heap;
  bool group = false;  // of `groupby`: its items also have the names `grouper` and `list`
};

struct DictObject : Object {
  explicit DictObject(Heap* heap) : heap(heap) {}
  ~DictObject() override;
  // Keys equal as Python has it (1, 1.0 and True are one key); an unhashable key fails.
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  void set(const Value& key, Value value);

  std::vector<std::pair<Value, Value>> entries;  // in the order they were first set
  Heap* heap;

 private:
  size_t find_index(const Value& key, uint64_t hash) const;
  std::unordered_multimap<uint64_t, size_t> index_;
};

struct DictViewObject : Object {
  enum class What { kKeys, kValues, kItems } what = What::kKeys;
  std::shared_ptr<DictObject> dict;
};

struct RangeObject : Object {
  int64_t start = 0, stop = 0, step = 1, count = 0;  // stop: as given, for printing
};

// An object that others may be put into after it was made: the only way to a cycle of references, so the heap
// knows them all and empties them when the render ends.
class MutableObject : public Object {
 public:
  explicit MutableObject(Heap* heap);
  ~MutableObject() override;
  MutableObject(const MutableObject&) = delete;
  MutableObject& operator=(const MutableObject&) = delete;
  virtual void drop_references() = 0;

  Heap* const heap;

 private:
  friend class Heap;
  void unlink();
  MutableObject* previous_ = nullptr;
  MutableObject* next_ = nullptr;
  bool linked_ = true;
};

struct IteratorObject : MutableObject {
  IteratorObject(Heap* heap, const char* type, std::function<bool(Value&)> next)
      : MutableObject(heap), type(type), next(std::move(next)) {}
  ~IteratorObject() override { drop_references(); }
  void drop_references() override;
  bool advance(Value& item);  // false at the end

  const char* type;  // Python's name for it
  std::function<bool(Value&)> next;
};

struct NamespaceObject : MutableObject {
  explicit NamespaceObject(Heap* heap)
      : MutableObject(heap), attributes(std::make_shared<DictObject>(heap)) {}
  void drop_references() override { attributes = std::make_shared<DictObject>(nullptr); }
  std::shared_ptr<DictObject> attributes;
};

// The variables of one call of a template, macro or recursive loop; `parent` is the lexically enclosing one.
struct Frame : MutableObject {
  Frame(Heap* heap, size_t slots, std::shared_ptr<Frame> parent)
      : MutableObject(heap), slots(slots), parent(std::move(parent)) {}
  ~Frame() override { drop_references(); }
  void drop_references() override;
  ValueList slots;
  std::shared_ptr<Frame> parent;
};

struct CyclerObject : MutableObject {
  CyclerObject(Heap* heap, ValueList values) : MutableObject(heap), values(std::move(values)) {}
  ~CyclerObject() override { drop_references(); }
  void drop_references() override;
  ValueList values;
  size_t position = 0;
};

// Counts what a render uses and ends it, by a Failure, at a limit.
class Heap {
 public:
  explicit Heap(const RenderLimits& limits) : limits_(limits) {}
  ~Heap();
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;

  void step(uint64_t count = 1) {
    steps_ += count;
    if (steps_ > limits_.max_steps) [[unlikely]]
      fail_steps();
  }
  void step_bytes(size_t bytes) { step(1 + bytes / 64); }
  // To be called before text of this size is made.
  void check_text(size_t bytes) {
    if (bytes > limits_.max_output_bytes) [[unlikely]]
      fail_text();
  }
  void grow(size_t bytes);
  void shrink(size_t bytes) { alive_ -= bytes; }

  // One level of native recursion, for as long as it lives.
  class Depth {
   public:
    explicit Depth(Heap& heap) : heap_(heap) {
      if (++heap.depth_ > heap.limits_.max_depth) [[unlikely]] {
        --heap.depth_;
        heap.fail_depth();
      }
    }
    ~Depth() { --heap_.depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;

   private:
    Heap& heap_;
  };

  // Destroys values without recursion, however deeply they are nested.
  void bury(ValueList&& values);

  Value string(std::string text, bool markup = false);
  Value string(std::string_view text) { return string(std::string(text)); }
  Value string(const char* text) { return string(std::string(text)); }
  Value undefined(std::string message);
  Value list(ValueList items);
  Value tuple(ValueList items);
  std::shared_ptr<DictObject> dict() { return std::make_shared<DictObject>(this); }
  Value iterator(const char* type, std::function<bool(Value&)> next);

 private:
  friend class MutableObject;
  [[noreturn]] void fail_steps() const;
  [[noreturn]] void fail_text() const;
  [[noreturn]] void fail_depth() const;

  RenderLimits limits_;
  uint64_t steps_ = 0;
  size_t alive_ = 0;
  int depth_ = 0;
  MutableObject* first_ = nullptr;
  std::vector<ValueList> graves_;
  bool burying_ = false;
};

inline Value dict_value(std::shared_ptr<DictObject> dict) {
  return Value(Kind::kDict, std::move(dict));
}

// Python's name of the type of a value: 'str', 'int', ...
const char* type_name(const Value& value);

// Converts data of a request. Fails beyond the heap's depth.
Value from_json(Heap& heap, const nlohmann::ordered_json& json);

// Walks a value as Python's iter() does; fails when it cannot be iterated. The items of what is already in
// memory are not copied.
std::shared_ptr<IteratorObject> iterate(Heap& heap, const Value& value);
bool is_iterable(const Value& value);
ValueList to_list(Heap& heap, const Value& value);
// Python's len(), or -1 when the value has none.
int64_t length_of(const Value& value);
Value dict_view_item(Heap& heap, const DictViewObject& view, size_t i);

bool truthy(const Value& value);

}  // namespace fathom::text::jinja

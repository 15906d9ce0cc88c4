// Python's json.dumps.
#include <algorithm>
#include <cmath>

#include "text/template/operators.h"
#include "text/template/printing.h"
#include "text/template/unicode.h"

namespace fathom::text::jinja {
namespace {

class JsonWriter {
 public:
  JsonWriter(Heap& heap, const JsonStyle& style) : heap_(heap), style_(style) {}

  void write(const Value& value, int level) {
    const Heap::Depth depth(heap_);
    heap_.step();
    switch (value.kind()) {
      case Kind::kString:
        return string(value.text());
      case Kind::kList:
      case Kind::kTuple:
        return array(value.items(), level);
      case Kind::kDict:
        return object(value.as<DictObject>(), level);
      default:
        return put(scalar(value));
    }
  }

  std::string take() { return std::move(out_); }

 private:
  void put(std::string_view text) {
    heap_.check_text(out_.size() + text.size());
    heap_.step_bytes(text.size());
    out_ += text;
  }

  static std::string scalar(const Value& value) {
    switch (value.kind()) {
      case Kind::kNone:
        return "null";
      case Kind::kBool:
        return value.as_int() != 0 ? "true" : "false";
      case Kind::kInt:
        return std::to_string(value.as_int());
      case Kind::kBigInt:
        return std::to_string(value.as_big_int());
      case Kind::kFloat:
        if (std::isnan(value.as_float())) return "NaN";
        if (std::isinf(value.as_float())) return value.as_float() < 0 ? "-Infinity" : "Infinity";
        return float_repr(value.as_float());
      default:
        fail("Object of type {} is not JSON serializable", type_name(value));
    }
  }

  void break_line(int level) {
    if (!style_.pretty) return;
    put("\n");
    for (int i = 0; i < level; ++i) put(style_.indent);
  }

  void array(const ValueList& items, int level) {
    if (items.empty()) return put("[]");
    put("[");
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) put(style_.item_separator);
      break_line(level + 1);
      write(items[i], level + 1);
    }
    break_line(level);
    put("]");
  }

  void object(const DictObject& dict, int level) {
    if (dict.entries.empty()) return put("{}");
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(),
                       [this](const auto* a, const auto* b) { return less(heap_, a->first, b->first); });
    }
    put("{");
    for (size_t i = 0; i < entries.size(); ++i) {
      const auto& [key, value] = *entries[i];
      if (i > 0) put(style_.item_separator);
      break_line(level + 1);
      if (key.is_string()) {
        string(key.text());
      } else if (key.is(Kind::kTuple)) {
        fail("keys must be str, int, float, bool or None, not tuple");
      } else {
        string(scalar(key));
      }
      put(style_.key_separator);
      write(value, level + 1);
    }
    break_line(level);
    put("}");
  }

  void string(std::string_view text) {
    heap_.check_text(out_.size() + text.size());
    heap_.step_bytes(text.size());
    out_ += '"';
    for (size_t at = 0; at < text.size();) {
      const size_t start = at;
      const uint32_t code = next_code_point(text, at);
      escape(code, text.substr(start, at - start));
    }
    out_ += '"';
  }

  void escape(uint32_t code, std::string_view bytes) {
    constexpr std::string_view kNamed = "\"\"\\\\\nn\rr\tt\bb\ff";
    for (size_t i = 0; i < kNamed.size(); i += 2) {
      if (code == static_cast<uint32_t>(kNamed[i])) {
        out_ += '\\';
        out_ += kNamed[i + 1];
        return;
      }
    }
    if (code < 0x20 || (style_.ensure_ascii && code >= 0x7F && code < 0x10000 && code != 0x7F)) {
      heap_.check_text(out_.size());
      out_ += fmt::format("\\u{:04x}", code);
    } else if (style_.ensure_ascii && code >= 0x10000) {
      const uint32_t rest = code - 0x10000;
      out_ += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
    } else {
      out_ += bytes;
    }
  }

  Heap& heap_;
  const JsonStyle& style_;
  std::string out_;
};

}  // namespace

std::string to_json(Heap& heap, const Value& value, const JsonStyle& style) {
  JsonWriter writer(heap, style);
  writer.write(value, 0);
  return writer.take();
}

}  // namespace fathom::text::jinja

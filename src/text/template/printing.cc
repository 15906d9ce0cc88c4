#include "text/template/printing.h"

#include <charconv>
#include <cmath>

#include "text/template/unicode.h"

namespace fathom::text::jinja {
namespace {

// Builds text, charging it as it grows: shared values nested in themselves many times over print
// exponentially long.
class Printer {
 public:
  Printer(Heap& heap, std::string& out) : heap_(heap), out_(out) {}

  void repr(const Value& value) {
    const Heap::Depth depth(heap_);
    heap_.step();
    switch (value.kind()) {
      case Kind::kMissing:
      case Kind::kUndefined:
        return put("Undefined");
      case Kind::kNone:
        return put("None");
      case Kind::kBool:
        return put(value.as_int() != 0 ? "True" : "False");
      case Kind::kInt:
        return put(std::to_string(value.as_int()));
      case Kind::kBigInt:
        return put(std::to_string(value.as_big_int()));
      case Kind::kFloat:
        return put(float_repr(value.as_float()));
      case Kind::kString:
        if (value.as<StringObject>().markup) return put("Markup(" + string_repr(value.text()) + ")");
        return put(string_repr(value.text()));
      case Kind::kList:
        return items(value.items(), "[", "]");
      case Kind::kTuple:
        return items(value.items(), "(", value.items().size() == 1 ? ",)" : ")");
      case Kind::kDict:
        return dict(value.as<DictObject>());
      case Kind::kDictView: {
        ValueList list;
        const auto& view = value.as<DictViewObject>();
        for (size_t i = 0; i < view.dict->entries.size(); ++i) list.push_back(dict_view_item(heap_, view, i));
        put(type_name(value));
        return items(list, "([", "])");
      }
      case Kind::kRange: {
        const auto& range = value.as<RangeObject>();
        put("range(" + std::to_string(range.start) + ", " + std::to_string(range.stop));
        return put(range.step == 1 ? ")" : ", " + std::to_string(range.step) + ")");
      }
      case Kind::kNamespace:
        put("<Namespace ");
        dict(*value.as<NamespaceObject>().attributes);
        return put(">");
      default:
        return put(std::string("<") + type_name(value) + ">");
    }
  }

 private:
  void put(std::string_view text) {
    heap_.check_text(out_.size() + text.size());
    heap_.step_bytes(text.size());
    out_ += text;
  }

  void items(const ValueList& list, std::string_view open, std::string_view close) {
    put(open);
    for (size_t i = 0; i < list.size(); ++i) {
      if (i > 0) put(", ");
      repr(list[i]);
    }
    put(close);
  }

  void dict(const DictObject& dict) {
    put("{");
    for (size_t i = 0; i < dict.entries.size(); ++i) {
      if (i > 0) put(", ");
      repr(dict.entries[i].first);
      put(": ");
      repr(dict.entries[i].second);
    }
    put("}");
  }

  Heap& heap_;
  std::string& out_;
};

}  // namespace

void append_repr(Heap& heap, std::string& out, const Value& value) {
  Printer(heap, out).repr(value);
}

void append_str(Heap& heap, std::string& out, const Value& value) {
  if (value.is_string()) {
    heap.check_text(out.size() + value.text().size());
    heap.step_bytes(value.text().size());
    out += value.text();
  } else if (!value.is_undefined() && !value.is_missing()) {
    append_repr(heap, out, value);
  }
}

std::string str(Heap& heap, const Value& value) {
  std::string out;
  append_str(heap, out, value);
  return out;
}
std::string repr(Heap& heap, const Value& value) {
  std::string out;
  append_repr(heap, out, value);
  return out;
}

// The shortest digits that read back as the same number, in Python's choice of notation.
std::string float_repr(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, number, std::chars_format::scientific).ptr;
  const std::string text(buffer, end);
  const size_t e = text.find('e');
  const int exponent = std::stoi(text.substr(e + 1));
  const bool negative = text[0] == '-';
  std::string digits;
  for (const char c : text.substr(0, e)) {
    if (c >= '0' && c <= '9') digits += c;
  }
  std::string out = negative ? "-" : "";
  const int count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    out += digits[0];
    if (count > 1) out += "." + digits.substr(1);
    const int magnitude = std::abs(exponent);
    return out + (exponent < 0 ? "e-" : "e+") + (magnitude < 10 ? "0" : "") + std::to_string(magnitude);
  }
  if (exponent < 0) return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  if (count <= exponent + 1)
    return out + digits + std::string(static_cast<size_t>(exponent + 1 - count), '0') + ".0";
  const auto point = static_cast<size_t>(exponent + 1);
  return out + digits.substr(0, point) + "." + digits.substr(point);
}

std::string string_repr(std::string_view text) {
  const bool double_quotes = text.find('\'') != text.npos && text.find('"') == text.npos;
  const char quote = double_quotes ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    const uint32_t code = next_code_point(text, at);
    if (code == static_cast<uint32_t>(quote) || code == '\\') {
      out += '\\';
      out += static_cast<char>(code);
    } else if (code == '\n') {
      out += "\\n";
    } else if (code == '\r') {
      out += "\\r";
    } else if (code == '\t') {
      out += "\\t";
    } else if (is_printable(code)) {
      out += text.substr(start, at - start);
    } else if (code < 0x100) {
      out += fmt::format("\\x{:02x}", code);
    } else if (code < 0x10000) {
      out += fmt::format("\\u{:04x}", code);
    } else {
      out += fmt::format("\\U{:08x}", code);
    }
  }
  return out + quote;
}

}  // namespace fathom::text::jinja

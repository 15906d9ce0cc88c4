#include "text/encoding/python_json.h"

#include <unordered_map>

#include <fmt/format.h>

#include "text/template/printing.h"

namespace fathom::text {
namespace {

using nlohmann::ordered_json;

std::string quote(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        } else {
          out += c;
        }
    }
  }
  return out + '"';
}

// Takes nlohmann's parse events, which know a number's own digits, and writes Python's form. With `fields`
// the entries of the outermost object are kept apart.
class Writer : public nlohmann::json_sax<ordered_json> {
 public:
  explicit Writer(std::vector<JsonField>* fields = nullptr) : fields_(fields) {}

  std::string take() { return std::move(out_); }

  bool null() override { return scalar("null"); }
  bool boolean(bool value) override { return scalar(value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override { return scalar(std::to_string(value)); }
  bool number_unsigned(number_unsigned_t value) override { return scalar(std::to_string(value)); }
  bool number_float(number_float_t value, const string_t& digits) override {
    // An integer too large for 64 bits.
    if (digits.find_first_of(".eE") == std::string::npos) return scalar(digits);
    return scalar(jinja::float_repr(value));
  }
  bool string(string_t& value) override {
    if (at_field()) {
      fields_->at(field_).is_string = true;
      fields_->at(field_).text = value;
      return true;
    }
    return scalar(quote(value));
  }
  bool binary(binary_t& /*value*/) override { return false; }
  bool start_object(size_t /*elements*/) override { return open('{'); }
  bool end_object() override { return close('}'); }
  bool start_array(size_t /*elements*/) override { return open('['); }
  bool end_array() override { return close(']'); }
  bool key(string_t& name) override {
    if (fields_ != nullptr && levels_.size() == 1) {
      field_ = places_.emplace(name, fields_->size()).first->second;
      if (field_ == fields_->size()) fields_->emplace_back();
      fields_->at(field_) = {name, false, {}};
      return true;
    }
    separate();
    out_ += quote(name) + ": ";
    after_key_ = true;
    return true;
  }
  bool parse_error(size_t /*position*/, const std::string& /*last*/,
                   const nlohmann::detail::exception& /*error*/) override {
    return false;
  }

 private:
  struct Level {
    bool object = false;
    bool begun = false;
  };

  // The next value is a whole entry of the outermost object.
  bool at_field() const { return fields_ != nullptr && levels_.size() == 1 && levels_[0].object; }

  void separate() {
    if (levels_.empty() || at_field()) return;
    if (levels_.back().begun) out_ += ", ";
    levels_.back().begun = true;
  }
  void value_begins() {
    if (!after_key_) separate();
    after_key_ = false;
  }
  void value_ended() {
    if (at_field()) fields_->at(field_).text = std::exchange(out_, {});
  }
  bool scalar(std::string_view text) {
    if (fields_ != nullptr && levels_.empty()) return false;
    value_begins();
    out_ += text;
    value_ended();
    return true;
  }
  bool open(char bracket) {
    const bool outermost = fields_ != nullptr && levels_.empty();
    if (outermost && bracket != '{') return false;
    value_begins();
    if (!outermost) out_ += bracket;
    levels_.push_back({bracket == '{', false});
    return true;
  }
  bool close(char bracket) {
    levels_.pop_back();
    if (fields_ != nullptr && levels_.empty()) return true;
    out_ += bracket;
    value_ended();
    return true;
  }

  std::vector<JsonField>* fields_;
  std::unordered_map<std::string, size_t> places_;  // of the keys
  size_t field_ = 0;
  std::vector<Level> levels_;
  bool after_key_ = false;
  std::string out_;
};

}  // namespace

std::string python_json(const ordered_json& value) {
  Writer writer;
  // Through text, so that there is one way to write it.
  const std::string text = value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  ordered_json::sax_parse(text, &writer);
  return writer.take();
}

std::optional<std::vector<JsonField>> read_json_fields(std::string_view json) {
  std::vector<JsonField> fields;
  Writer writer(&fields);
  if (!ordered_json::sax_parse(json, &writer)) return std::nullopt;
  return fields;
}

}  // namespace fathom::text

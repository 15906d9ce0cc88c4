#include "weights/safetensors_header.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace fathom::weights {

namespace {

constexpr size_t kMaxRank = 8;
constexpr size_t kMaxNameBytes = 1024;

// Takes {"name": {"dtype": text, "shape": [n...], "data_offsets": [begin, end]}, ...} event by event; false
// stops the parser.
class HeaderHandler final : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<HeaderEntry> entries;
  std::string failure;

  bool start_object(size_t) override {
    if (array_) return fail("an object inside an array");
    ++depth_;
    if (depth_ == 1) return true;
    if (depth_ == 2) {
      seen_ = 0;
      offsets_ = 0;
      return true;
    }
    return fail("an object inside a tensor's entry");
  }
  bool end_object() override {
    if (depth_ == 2 && !metadata_ && seen_ != (kDtype | kShape | kOffsets)) {
      return fail("dtype, shape or data_offsets is missing");
    }
    --depth_;
    return true;
  }
  bool key(string_t& name) override {
    if (depth_ == 1) {
      metadata_ = name == "__metadata__";
      if (name.size() > kMaxNameBytes) return fail("a tensor name above 1024 bytes");
      if (!metadata_) {
        entries.emplace_back();
        entries.back().name = name;
      }
      return true;
    }
    if (metadata_) return true;
    field_ = name == "dtype" ? kDtype : name == "shape" ? kShape : name == "data_offsets" ? kOffsets : 0;
    if (field_ == 0) return fail("unknown field '" + name.substr(0, 64) + "'");
    if ((seen_ & field_) != 0) return fail("field '" + name + "' occurs twice");
    seen_ |= field_;
    return true;
  }
  bool start_array(size_t) override {
    if (array_ || depth_ != 2 || metadata_ || field_ == kDtype) return fail("an unexpected array");
    array_ = true;
    return true;
  }
  bool end_array() override {
    array_ = false;
    if (field_ == kOffsets && offsets_ != 2) return fail("data_offsets must be two numbers");
    return true;
  }
  bool string(string_t& value) override {
    if (depth_ == 2 && metadata_) return true;
    if (depth_ != 2 || array_ || field_ != kDtype) return fail("an unexpected string");
    entries.back().dtype = value.substr(0, 32);
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (depth_ != 2 || metadata_ || !array_) return fail("an unexpected number");
    HeaderEntry& entry = entries.back();
    if (field_ == kShape) {
      if (entry.shape.size() == kMaxRank) return fail("more than 8 dimensions");
      entry.shape.push_back(value);
      return true;
    }
    if (offsets_ == 2) return fail("data_offsets must be two numbers");
    (offsets_++ == 0 ? entry.begin : entry.end) = value;
    return true;
  }
  bool number_integer(number_integer_t) override { return fail("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { return fail("a number that is no integer"); }
  bool boolean(bool) override { return fail("an unexpected boolean"); }
  bool null() override { return fail("an unexpected null"); }
  bool binary(binary_t&) override { return fail("binary data"); }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) override {
    return fail("not valid JSON near byte " + std::to_string(position));
  }

 private:
  static constexpr int kDtype = 1, kShape = 2, kOffsets = 4;

  bool fail(const std::string& what) {
    failure = what;
    if (depth_ >= 1 && !metadata_ && !entries.empty()) failure += " (tensor '" + entries.back().name + "')";
    return false;
  }

  int depth_ = 0;
  bool metadata_ = false;
  bool array_ = false;
  int field_ = 0;
  int seen_ = 0;
  int offsets_ = 0;
};

}  // namespace

Result<std::vector<HeaderEntry>> parse_header(std::string_view json) {
  HeaderHandler handler;
  if (json.empty() || json.front() != '{') {
    return error(ErrorCode::kDataLoss, "the header does not start with '{{'");
  }
  if (!nlohmann::json::sax_parse(json, &handler)) {
    return error(ErrorCode::kDataLoss, "bad header: {}", handler.failure);
  }
  return std::move(handler.entries);
}

}  // namespace fathom::weights

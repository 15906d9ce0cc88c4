#include "api/fields.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace fathom::api {
namespace {

using nlohmann::ordered_json;
using Kind = FieldNote::Kind;

// Cuts at a character's border so that the message stays UTF-8.
std::string clip(std::string_view text, size_t max) {
  if (text.size() <= max) return std::string(text);
  size_t end = max;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return std::string(text.substr(0, end)) + "...";
}

std::optional<int64_t> as_integer(const ordered_json& value) {
  if (value.is_number_unsigned()) {
    const auto wide = value.get<uint64_t>();
    if (wide > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
    return static_cast<int64_t>(wide);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  // 16.0 is what some languages send for 16. Beyond 2^53 a double no longer says which integer is meant.
  const double real = value.get<double>();
  if (!(std::abs(real) <= 9007199254740992.0) || real != std::floor(real)) return std::nullopt;
  return static_cast<int64_t>(real);
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({substituted, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

}  // namespace

std::string describe(const ordered_json& value) {
  switch (value.type()) {
    case ordered_json::value_t::null:
      return "null";
    case ordered_json::value_t::string:
      return "the string \"" + clip(value.get_ref<const std::string&>(), 60) + "\"";
    case ordered_json::value_t::array:
      return fmt::format("a list of {}", value.size());
    case ordered_json::value_t::object:
      return "an object";
    default:
      return clip(dump(value), 60);
  }
}

std::string_view nearest_name(std::string_view name, const std::vector<std::string_view>& known) {
  if (name.size() > 64) return {};
  std::string_view best;
  size_t best_distance = std::min<size_t>(4, name.size() / 2 + 1);
  for (std::string_view candidate : known) {
    const size_t distance = edit_distance(name, candidate);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

Fields::Fields(const ordered_json& object, std::string path, std::string_view what, FieldLog* log)
    : object_(object), path_(std::move(path)), what_(what), log_(log) {}

Fields::Fields(const Fields& outer, const ordered_json& object, std::string_view name)
    : Fields(object, outer.path_ + std::string(name) + ".", outer.path_ + std::string(name), outer.log_) {}

const ordered_json* Fields::find(std::string_view name, FieldNote note) {
  if (log_ != nullptr) {
    note.path = path_ + std::string(name);
    log_->push_back(std::move(note));
  }
  return find(name);
}

const ordered_json* Fields::find(std::string_view name) {
  known_.push_back(name);
  for (const auto& [key, value] : object_.get_ref<const ordered_json::object_t&>()) {
    if (key == name) return value.is_null() ? nullptr : &value;
  }
  return nullptr;
}

void Fields::fail(ApiError error) {
  if (!error_) error_ = std::move(error);
}

void Fields::fail(std::string_view name, std::string_view message) {
  if (error_) return;
  const std::string param = path_ + std::string(name);
  error_ = ApiError{400, fmt::format("{}: {}", param, message), param, {}};
}

void Fields::fail_type(std::string_view name, std::string_view expected, const ordered_json& got) {
  fail(name, fmt::format("got {}, expected {}", describe(got), expected));
}

bool Fields::boolean(std::string_view name, bool* out) {
  const ordered_json* value = find(name, {.kind = Kind::kBoolean});
  if (value == nullptr) return false;
  if (!value->is_boolean()) {
    fail_type(name, "true or false", *value);
    return false;
  }
  *out = value->get<bool>();
  return true;
}

bool Fields::integer(std::string_view name, int64_t min, int64_t max, int64_t* out) {
  const ordered_json* value =
      find(name, {.kind = Kind::kInteger, .range = {static_cast<double>(min), static_cast<double>(max)}});
  if (value == nullptr) return false;
  const std::optional<int64_t> got = as_integer(*value);
  if (!got || *got < min || *got > max) {
    fail_type(name, fmt::format("an integer from {} to {}", min, max), *value);
    return false;
  }
  *out = *got;
  return true;
}

bool Fields::int32(std::string_view name, int32_t min, int32_t max, int32_t* out) {
  int64_t wide = 0;
  if (!integer(name, min, max, &wide)) return false;
  *out = static_cast<int32_t>(wide);
  return true;
}

bool Fields::number(std::string_view name, Range range, float* out) {
  const ordered_json* value = find(name, {.kind = Kind::kNumber, .range = range});
  if (value == nullptr) return false;
  const double got = value->is_number() ? value->get<double>() : NAN;
  const bool low = range.open_min ? got <= range.min : got < range.min;
  if (!std::isfinite(got) || low || got > range.max) {
    fail_type(name,
              range.open_min ? fmt::format("a number above {} and up to {}", range.min, range.max)
                             : fmt::format("a number from {} to {}", range.min, range.max),
              *value);
    return false;
  }
  *out = static_cast<float>(got);
  return true;
}

bool Fields::string(std::string_view name, size_t max_bytes, std::string* out) {
  const ordered_json* value = find(name, {.kind = Kind::kString, .max_bytes = max_bytes});
  if (value == nullptr) return false;
  if (!value->is_string()) {
    fail_type(name, "a string", *value);
    return false;
  }
  const auto& text = value->get_ref<const std::string&>();
  if (text.size() > max_bytes) {
    fail(name, fmt::format("got {} bytes, expected at most {}", text.size(), max_bytes));
    return false;
  }
  *out = text;
  return true;
}

bool Fields::strings(std::string_view name, size_t max_count, size_t max_bytes,
                     std::vector<std::string>* out) {
  const ordered_json* value =
      find(name, {.kind = Kind::kStrings, .max_bytes = max_bytes, .max_count = max_count});
  if (value == nullptr) return false;
  if (!value->is_string() && !value->is_array()) {
    fail_type(name, "a string or a list of strings", *value);
    return false;
  }
  const size_t count = value->is_string() ? 1 : value->size();
  if (count > max_count) {
    fail(name, fmt::format("got a list of {}, expected at most {}", count, max_count));
    return false;
  }
  std::vector<std::string> texts;
  for (size_t i = 0; i < count; ++i) {
    const ordered_json& item = value->is_string() ? *value : (*value)[i];
    const std::string item_name = value->is_string() ? std::string(name) : fmt::format("{}[{}]", name, i);
    if (!item.is_string()) {
      fail_type(item_name, "a string", item);
      return false;
    }
    const auto& text = item.get_ref<const std::string&>();
    if (text.empty() || text.size() > max_bytes) {
      fail(item_name, fmt::format("got {} bytes, expected 1 to {}", text.size(), max_bytes));
      return false;
    }
    texts.push_back(text);
  }
  *out = std::move(texts);
  return true;
}

bool Fields::integers(std::string_view name, size_t max_count, int64_t min, int64_t max,
                      std::vector<int32_t>* out) {
  const ordered_json* value = list(name, {.kind = Kind::kIntegers,
                                          .range = {static_cast<double>(min), static_cast<double>(max)},
                                          .max_count = max_count});
  if (value == nullptr) return false;
  if (value->size() > max_count) {
    fail(name, fmt::format("got a list of {}, expected at most {}", value->size(), max_count));
    return false;
  }
  std::vector<int32_t> numbers(value->size());
  for (size_t i = 0; i < value->size(); ++i) {
    const std::optional<int64_t> got = as_integer((*value)[i]);
    if (!got || *got < min || *got > max) {
      fail_type(fmt::format("{}[{}]", name, i), fmt::format("an integer from {} to {}", min, max),
                (*value)[i]);
      return false;
    }
    numbers[i] = static_cast<int32_t>(*got);
  }
  *out = std::move(numbers);
  return true;
}

const ordered_json* Fields::list(std::string_view name) {
  return list(name, {.kind = Kind::kList});
}

const ordered_json* Fields::list(std::string_view name, FieldNote note) {
  const ordered_json* value = find(name, std::move(note));
  if (value == nullptr || value->is_array()) return value;
  fail_type(name, "a list", *value);
  return nullptr;
}

const ordered_json* Fields::object(std::string_view name) {
  const ordered_json* value = find(name, {.kind = Kind::kObject});
  if (value == nullptr || value->is_object()) return value;
  fail_type(name, "an object", *value);
  return nullptr;
}

const ordered_json* Fields::any(std::string_view name) {
  return find(name, {.kind = Kind::kAny});
}

void Fields::accept(std::initializer_list<std::string_view> names) {
  for (std::string_view name : names) find(name, {.kind = Kind::kIgnored});
}

void Fields::refuse(std::initializer_list<std::string_view> names, std::string_view reason) {
  for (std::string_view name : names) {
    const ordered_json* value = find(name, {.kind = Kind::kRefused, .why = reason});
    if (value == nullptr) continue;
    const bool asks_nothing = (value->is_boolean() && !value->get<bool>()) ||
                              (value->is_string() && value->get_ref<const std::string&>().empty()) ||
                              (value->is_structured() && value->empty());
    if (!asks_nothing) fail(unsupported(path_ + std::string(name), reason));
  }
}

Refusal Fields::finish() {
  if (error_) return error_;
  for (const auto& [key, value] : object_.get_ref<const ordered_json::object_t&>()) {
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    const std::string_view near = nearest_name(key, known_);
    const std::string param = path_ + clip(key, 100);
    return ApiError{400,
                    fmt::format("{}: not a field of the {}{}", param, what_,
                                near.empty() ? "" : fmt::format("; did you mean '{}'?", near)),
                    param, "unknown_field"};
  }
  return std::nullopt;
}

}  // namespace fathom::api

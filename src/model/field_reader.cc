#include "model/field_reader.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace fathom::model {

namespace {

using nlohmann::json;

constexpr size_t kMaxShown = 80;

std::string shown(const json& value) {
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > kMaxShown) text = text.substr(0, kMaxShown) + "...";
  return text;
}

// JSON writers of Python tools turn 2 into 2.0 at times.
std::optional<int64_t> as_integer(const json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number_float()) {
    const double number = value.get<double>();
    if (std::isfinite(number) && std::abs(number) < 0x1p53 && number == std::floor(number)) {
      return static_cast<int64_t>(number);
    }
  }
  return std::nullopt;
}

}  // namespace

const json* FieldReader::find(std::string_view name) const {
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

void FieldReader::unexpected(std::string_view name, const std::string& expected, const json& got) {
  problem(fmt::format("{}: expected {}, got {}", full_name(name), expected, shown(got)));
}

int64_t FieldReader::integer(std::string_view name, int64_t low, int64_t high,
                             std::optional<int64_t> otherwise) {
  const json* value = find(name);
  if (value == nullptr) {
    if (!otherwise) problem(fmt::format("{} is missing", full_name(name)));
    return otherwise.value_or(low);
  }
  const auto number = as_integer(*value);
  if (!number || *number < low || *number > high) {
    unexpected(name, fmt::format("an integer from {} to {}", low, high), *value);
    return low;
  }
  return *number;
}

double FieldReader::number(std::string_view name, double low, double high, std::optional<double> otherwise) {
  const json* value = find(name);
  if (value == nullptr) {
    if (!otherwise) problem(fmt::format("{} is missing", full_name(name)));
    return otherwise.value_or(low);
  }
  const double number = value->is_number() ? value->get<double>() : std::nan("");
  if (!(number >= low && number <= high)) {
    unexpected(name, fmt::format("a number from {} to {}", low, high), *value);
    return low;
  }
  return number;
}

bool FieldReader::boolean(std::string_view name, bool otherwise) {
  const json* value = find(name);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean()) {
    unexpected(name, "true or false", *value);
    return otherwise;
  }
  return value->get<bool>();
}

std::string FieldReader::text(std::string_view name, std::string_view otherwise) {
  const json* value = find(name);
  if (value == nullptr) return std::string(otherwise);
  if (!value->is_string()) {
    unexpected(name, "a string", *value);
    return std::string(otherwise);
  }
  return value->get<std::string>();
}

std::string FieldReader::choice(std::string_view name, std::string_view otherwise,
                                std::initializer_list<std::string_view> known) {
  std::string value = text(name, otherwise);
  if (std::find(known.begin(), known.end(), value) == known.end()) {
    unexpected(name, fmt::format("one of {}", fmt::join(known, ", ")), json(value));
    value = otherwise;
  }
  return value;
}

std::vector<int32_t> FieldReader::token_ids(std::string_view name) {
  std::vector<int32_t> ids;
  const json* value = find(name);
  if (value == nullptr) return ids;
  const auto take = [&](const json& item) {
    const auto id = as_integer(item);
    if (!id || *id < 0 || *id > std::numeric_limits<int32_t>::max()) {
      unexpected(name, "a token id or a list of token ids", item);
      return false;
    }
    ids.push_back(static_cast<int32_t>(*id));
    return true;
  };
  if (!value->is_array()) {
    take(*value);
  } else if (value->size() > 1024) {
    problem(full_name(name) + ": more than 1024 token ids");
  } else {
    for (const auto& item : *value) {
      if (!take(item)) break;
    }
  }
  return ids;
}

std::vector<std::string> FieldReader::texts(std::string_view name) {
  std::vector<std::string> values;
  const json* value = find(name);
  if (value == nullptr) return values;
  if (!value->is_array()) {
    unexpected(name, "a list of strings", *value);
    return values;
  }
  for (const auto& item : *value) {
    if (!item.is_string()) {
      unexpected(name, "a list of strings", *value);
      return {};
    }
    values.push_back(item.get<std::string>());
  }
  return values;
}

}  // namespace fathom::model

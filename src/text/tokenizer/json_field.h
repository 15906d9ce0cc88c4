// Typed access to the objects of tokenizer.json, with errors that name the field.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "text/tokenizer/vocabulary.h"

namespace fathom::text {

// object[name], or null when it is absent or `object` is not an object. The reference lives as long as
// `object`.
inline const nlohmann::json& json_field(const nlohmann::json& object, std::string_view name) {
  static const nlohmann::json null;
  if (!object.is_object()) return null;
  const auto found = object.find(name);
  return found == object.end() ? null : *found;
}

// A boolean field; `fallback` when it is absent or null.
inline Result<bool> json_bool(const nlohmann::json& object, std::string_view name, bool fallback) {
  const auto& value = json_field(object, name);
  if (value.is_null()) return fallback;
  if (!value.is_boolean()) {
    return error(ErrorCode::kInvalidArgument, "'{}' must be true or false, got {}", name, value.type_name());
  }
  return value.get<bool>();
}

// A string field that must be there.
inline Result<std::string> json_string(const nlohmann::json& object, std::string_view name) {
  const auto& value = json_field(object, name);
  if (!value.is_string()) {
    return error(ErrorCode::kInvalidArgument, "'{}' must be a string, got {}", name, value.type_name());
  }
  return value.get<std::string>();
}

// A token id: a whole number in [0, Vocabulary::kMaxSize).
inline Result<int32_t> json_token_id(const nlohmann::json& json) {
  const int64_t id = json.is_number_integer() ? json.get<int64_t>() : -1;
  if (id < 0 || id >= Vocabulary::kMaxSize) {
    return error(ErrorCode::kInvalidArgument, "a token id must be from 0 to {}, got {}",
                 Vocabulary::kMaxSize - 1,
                 json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  }
  return static_cast<int32_t>(id);
}

}  // namespace fathom::text

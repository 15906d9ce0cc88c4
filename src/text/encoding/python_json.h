// JSON as Python's json.dumps(value, ensure_ascii=False) writes it: the form in which DeepSeek's encoders put
// tools, schemas and arguments into a prompt. Numbers beyond 64 bits keep their digits.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::text {

std::string python_json(const nlohmann::ordered_json& value);

// One entry of a JSON object.
struct JsonField {
  std::string key;
  bool is_string = false;
  std::string text;  // the string itself, or the value as json.dumps writes it
};

// The entries of the object in `json`, in order; of a key given twice the last value counts, at the first
// one's place. Nothing when it is not a JSON object.
std::optional<std::vector<JsonField>> read_json_fields(std::string_view json);

}  // namespace fathom::text

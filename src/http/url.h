// Request targets: percent encoding, query strings.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace fathom::http {

// Nothing when a '%' is not followed by two hex digits.
std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space = false);
// Everything but letters, digits and "-._~" is encoded.
std::string percent_encode(std::string_view text);

// The decoded value of the first parameter called `name` in "a=1&b=2"; a bare name has the value "".
std::optional<std::string> find_query_param(std::string_view query, std::string_view name);

struct Target {
  std::string path;   // decoded, begins with '/', or is "*"
  std::string query;  // not decoded
};
// Accepts "/path?query", "http://host/path?query" and "*". Nothing for anything else, for wrong percent
// encoding, and for paths with control characters.
std::optional<Target> parse_target(std::string_view target);

}  // namespace fathom::http

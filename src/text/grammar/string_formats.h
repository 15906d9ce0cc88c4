// The `format`s of strings that are enforced, as regular expressions of the whole string.
#pragma once

#include <string>
#include <string_view>

namespace fathom::text {

// Empty for one that is not enforced.
std::string string_format(std::string_view name);
std::string string_format_names();
// One of JSON Schema's own. Others constrain nothing.
bool is_string_format(std::string_view name);

}  // namespace fathom::text

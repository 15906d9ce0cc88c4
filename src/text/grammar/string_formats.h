// The `format`s of strings that are enforced, as regular expressions of the whole string.
#pragma once

#include <string>
#include <string_view>

namespace fathom::text {

// Empty for an unknown one.
std::string string_format(std::string_view name);
std::string string_format_names();

}  // namespace fathom::text

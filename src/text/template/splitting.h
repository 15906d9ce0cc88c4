// Taking text apart and putting it together, shared by the methods of str and the filters.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/template/value.h"

namespace fathom::text::jinja {

std::string strip_text(std::string_view text, bool left, bool right);
std::string strip_characters(std::string_view text, std::string_view characters, bool left, bool right);

// At most `most` splits, -1 for all; from the right, the rest stays in the first part.
std::vector<std::string_view> split_spaces(std::string_view text, int64_t most, bool from_right);
std::vector<std::string_view> split_text(std::string_view text, std::string_view separator, int64_t most,
                                         bool from_right);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);

std::string replace_text(Heap& heap, std::string_view text, std::string_view from, std::string_view to,
                         int64_t most);
std::string center_text(Heap& heap, std::string_view text, int64_t width, std::string_view fill);

}  // namespace fathom::text::jinja

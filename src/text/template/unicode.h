// Text as Python sees it: code points, their classes and their cases. All text is UTF-8; a byte that is not
// part of a well-formed code point counts as one by itself.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::text::jinja {

// Bytes of the code point that starts at text[at].
size_t code_point_size(std::string_view text, size_t at);
// Reads the code point at text[at] and moves `at` behind it.
uint32_t next_code_point(std::string_view text, size_t& at);
void append_code_point(std::string& out, uint32_t code);
std::vector<uint32_t> code_points(std::string_view text);
std::string from_code_points(const std::vector<uint32_t>& codes);
// The byte at which code point `index` starts; text.size() for one behind the last.
size_t offset_of(std::string_view text, int64_t index);

// Byte positions of a needle, or npos, in time linear in both.
size_t find_text(std::string_view text, std::string_view needle, size_t from = 0);
size_t find_last_text(std::string_view text, std::string_view needle);

bool is_space(uint32_t code);
bool is_line_break(uint32_t code);
bool is_alpha(uint32_t code);
bool is_decimal(uint32_t code);
bool is_digit(uint32_t code);
bool is_numeric(uint32_t code);
bool is_alnum(uint32_t code);
bool is_lower(uint32_t code);
bool is_upper(uint32_t code);
bool is_title(uint32_t code);
bool is_printable(uint32_t code);
bool is_word(uint32_t code);  // \w of a regular expression
bool is_identifier_start(uint32_t code);
bool is_identifier_part(uint32_t code);

std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
std::string capitalize(std::string_view text);  // the first in title case, the others in lower case
std::string title_case(std::string_view text);
std::string swap_case(std::string_view text);

// Without the white space at the ends.
std::string_view strip_left(std::string_view text);
std::string_view strip_right(std::string_view text);
inline std::string_view strip(std::string_view text) {
  return strip_right(strip_left(text));
}

}  // namespace fathom::text::jinja

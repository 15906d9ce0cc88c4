#include "text/template/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>
#include <iterator>

#include "text/template/special_casing.h"

namespace fathom::text::jinja {
namespace {

utf8proc_category_t category(uint32_t code) {
  return code > 0x10FFFF ? UTF8PROC_CATEGORY_CN : utf8proc_category(static_cast<utf8proc_int32_t>(code));
}

struct CodeRange {
  uint32_t first, last;
};
bool in_ranges(const CodeRange* begin, const CodeRange* end, uint32_t code) {
  const auto it =
      std::upper_bound(begin, end, code, [](uint32_t c, const CodeRange& r) { return c < r.first; });
  return it != begin && code <= std::prev(it)->last;
}
template <size_t N>
bool in_ranges(const CodeRange (&ranges)[N], uint32_t code) {
  return in_ranges(ranges, ranges + N, code);
}

// Unicode's Other_Lowercase and Other_Uppercase, and Numeric_Type=Digit outside the decimal digits.
constexpr CodeRange kOtherLower[] = {
    {0xAA, 0xAA},       {0xBA, 0xBA},       {0x2B0, 0x2B8},     {0x2C0, 0x2C1},     {0x2E0, 0x2E4},
    {0x345, 0x345},     {0x37A, 0x37A},     {0x1D2C, 0x1D6A},   {0x1D78, 0x1D78},   {0x1D9B, 0x1DBF},
    {0x2071, 0x2071},   {0x207F, 0x207F},   {0x2090, 0x209C},   {0x2170, 0x217F},   {0x24D0, 0x24E9},
    {0x2C7C, 0x2C7D},   {0xA69C, 0xA69D},   {0xA770, 0xA770},   {0xA7F8, 0xA7F9},   {0xAB5C, 0xAB5F},
    {0x10780, 0x10780}, {0x10783, 0x10785}, {0x10787, 0x107B0}, {0x107B2, 0x107BA},
};
constexpr CodeRange kOtherUpper[] = {
    {0x2160, 0x216F}, {0x24B6, 0x24CF}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189},
};
constexpr CodeRange kOtherDigit[] = {
    {0xB2, 0xB3},     {0xB9, 0xB9},       {0x1369, 0x1371},   {0x19DA, 0x19DA},   {0x2070, 0x2070},
    {0x2074, 0x2079}, {0x2080, 0x2089},   {0x2460, 0x2468},   {0x2474, 0x247C},   {0x2488, 0x2490},
    {0x24EA, 0x24EA}, {0x24F5, 0x24FD},   {0x24FF, 0x24FF},   {0x2776, 0x277E},   {0x2780, 0x2788},
    {0x278A, 0x2792}, {0x10A40, 0x10A43}, {0x10E60, 0x10E68}, {0x11052, 0x1105A}, {0x1F100, 0x1F10A},
};

template <size_t N>
bool append_special(const SpecialCase (&table)[N], std::string& out, uint32_t code) {
  const auto it = std::lower_bound(std::begin(table), std::end(table), code,
                                   [](const SpecialCase& entry, uint32_t c) { return entry.code < c; });
  if (it == std::end(table) || it->code != code) return false;
  for (const uint32_t mapped : it->mapped) {
    if (mapped != 0) append_code_point(out, mapped);
  }
  return true;
}

void append_upper(std::string& out, uint32_t code) {
  if (code >= 0x80 && append_special(kSpecialUpper, out, code)) return;
  append_code_point(out, static_cast<uint32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(code))));
}
void append_title(std::string& out, uint32_t code) {
  if (code >= 0x80 && append_special(kSpecialTitle, out, code)) return;
  append_code_point(out, static_cast<uint32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(code))));
}

bool is_cased(uint32_t code) {
  return is_lower(code) || is_upper(code) || is_title(code);
}
bool is_case_ignorable(uint32_t code) {
  switch (category(code)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      break;
  }
  constexpr uint32_t kWordBreakMid[] = {0x27,   0x2E,   0x3A,   0xB7,   0x387,  0x55F,
                                        0x5F4,  0x2018, 0x2019, 0x2024, 0x2027, 0xFE13,
                                        0xFE52, 0xFE55, 0xFF07, 0xFF0E, 0xFF1A};
  return std::find(std::begin(kWordBreakMid), std::end(kWordBreakMid), code) != std::end(kWordBreakMid);
}

constexpr uint32_t kSigma = 0x3A3;

// A capital sigma at the end of a word has a small form of its own.
bool ends_word(const std::vector<uint32_t>& codes, size_t at) {
  size_t before = at;
  while (before > 0 && is_case_ignorable(codes[before - 1])) --before;
  if (before == 0 || !is_cased(codes[before - 1])) return false;
  size_t after = at + 1;
  while (after < codes.size() && is_case_ignorable(codes[after])) ++after;
  return after == codes.size() || !is_cased(codes[after]);
}

void append_lower(std::string& out, const std::vector<uint32_t>& codes, size_t at) {
  const uint32_t code = codes[at];
  if (code == 0x130) {
    out += "i\xCC\x87";
  } else if (code == kSigma) {
    append_code_point(out, ends_word(codes, at) ? 0x3C2 : 0x3C3);
  } else {
    append_code_point(out, static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code))));
  }
}

}  // namespace

size_t code_point_size(std::string_view text, size_t at) {
  const auto byte = static_cast<unsigned char>(text[at]);
  size_t size = byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
  size = std::min(size, text.size() - at);
  for (size_t i = 1; i < size; ++i) {
    if ((static_cast<unsigned char>(text[at + i]) & 0xC0) != 0x80) return i;
  }
  return size;
}

uint32_t next_code_point(std::string_view text, size_t& at) {
  const size_t size = code_point_size(text, at);
  const auto first = static_cast<unsigned char>(text[at]);
  uint32_t code = size == 1 ? first : size == 2 ? first & 0x1FU : size == 3 ? first & 0x0FU : first & 0x07U;
  for (size_t i = 1; i < size; ++i) code = code << 6 | (static_cast<unsigned char>(text[at + i]) & 0x3FU);
  at += size;
  return std::min<uint32_t>(code, 0x10FFFF);
}

void append_code_point(std::string& out, uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | code >> 6);
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | code >> 12);
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | code >> 18);
    out += static_cast<char>(0x80 | (code >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  }
}

std::vector<uint32_t> code_points(std::string_view text) {
  std::vector<uint32_t> codes;
  codes.reserve(text.size());
  for (size_t at = 0; at < text.size();) codes.push_back(next_code_point(text, at));
  return codes;
}

std::string from_code_points(const std::vector<uint32_t>& codes) {
  std::string text;
  text.reserve(codes.size());
  for (const uint32_t code : codes) append_code_point(text, code);
  return text;
}

size_t offset_of(std::string_view text, int64_t index) {
  size_t at = 0;
  for (; index > 0 && at < text.size(); --index) at += code_point_size(text, at);
  return at;
}

size_t find_text(std::string_view text, std::string_view needle, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  const void* found = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(found) - text.data());
}
size_t find_last_text(std::string_view text, std::string_view needle) {
  const std::string backward(text.rbegin(), text.rend());
  const size_t found = find_text(backward, std::string(needle.rbegin(), needle.rend()));
  return found == std::string_view::npos ? found : text.size() - found - needle.size();
}

bool is_space(uint32_t c) {
  return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}
bool is_line_break(uint32_t c) {
  return (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}
bool is_alpha(uint32_t code) {
  const auto c = category(code);
  return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}
bool is_decimal(uint32_t code) {
  return category(code) == UTF8PROC_CATEGORY_ND;
}
bool is_digit(uint32_t code) {
  return is_decimal(code) || in_ranges(kOtherDigit, code);
}
bool is_numeric(uint32_t code) {
  const auto c = category(code);
  return c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
}
bool is_alnum(uint32_t code) {
  return is_alpha(code) || is_numeric(code);
}
bool is_lower(uint32_t code) {
  return category(code) == UTF8PROC_CATEGORY_LL || in_ranges(kOtherLower, code);
}
bool is_upper(uint32_t code) {
  return category(code) == UTF8PROC_CATEGORY_LU || in_ranges(kOtherUpper, code);
}
bool is_title(uint32_t code) {
  return category(code) == UTF8PROC_CATEGORY_LT;
}
bool is_printable(uint32_t code) {
  if (code == ' ') return true;
  const auto c = category(code);
  return c != UTF8PROC_CATEGORY_CN && c < UTF8PROC_CATEGORY_ZS;
}
bool is_word(uint32_t code) {
  return code == '_' || is_alnum(code);
}
bool is_identifier_start(uint32_t code) {
  return code == '_' || is_alpha(code) || category(code) == UTF8PROC_CATEGORY_NL;
}
bool is_identifier_part(uint32_t code) {
  const auto c = category(code);
  return is_identifier_start(code) || c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_MC ||
         c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_PC;
}

std::string to_upper(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) append_upper(out, next_code_point(text, at));
  return out;
}
std::string to_lower(std::string_view text) {
  const auto codes = code_points(text);
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < codes.size(); ++i) append_lower(out, codes, i);
  return out;
}
std::string capitalize(std::string_view text) {
  const auto codes = code_points(text);
  std::string out;
  for (size_t i = 0; i < codes.size(); ++i) {
    if (i == 0) {
      append_title(out, codes[0]);
    } else {
      append_lower(out, codes, i);
    }
  }
  return out;
}
std::string title_case(std::string_view text) {
  const auto codes = code_points(text);
  std::string out;
  bool inside = false;
  for (size_t i = 0; i < codes.size(); ++i) {
    if (inside) {
      append_lower(out, codes, i);
    } else {
      append_title(out, codes[i]);
    }
    inside = is_cased(codes[i]);
  }
  return out;
}
std::string swap_case(std::string_view text) {
  const auto codes = code_points(text);
  std::string out;
  for (size_t i = 0; i < codes.size(); ++i) {
    if (is_upper(codes[i])) {
      append_lower(out, codes, i);
    } else if (is_lower(codes[i])) {
      append_upper(out, codes[i]);
    } else {
      append_code_point(out, codes[i]);
    }
  }
  return out;
}

std::string_view strip_left(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    size_t next = at;
    if (!is_space(next_code_point(text, next))) break;
    at = next;
  }
  return text.substr(at);
}
std::string_view strip_right(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    size_t start = end - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    size_t at = start;
    if (!is_space(next_code_point(text, at)) || at != end) break;
    end = start;
  }
  return text.substr(0, end);
}

}  // namespace fathom::text::jinja

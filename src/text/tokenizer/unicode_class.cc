#include "text/tokenizer/unicode_class.h"

#include <algorithm>
#include <cstddef>
#include <map>

namespace fathom::text {
namespace {

struct CategoryRange {
  char32_t first;
  char32_t last;  // inclusive
  CharClass category;
};

constexpr CharClass kL = kLetter, kM = kMark, kN = kNumber, kP = kPunctuation, kS = kSymbol;
constexpr CategoryRange kCategories[] = {
#include "text/tokenizer/unicode_ranges.inc"
};

// White_Space of Unicode, which is \s of the regex engine, and the ranges of DeepSeek's CJK pattern.
constexpr CategoryRange kFlags[] = {
    {0x09, 0x0D, kSpace},           {0x20, 0x20, kSpace},           {0x85, 0x85, kSpace},
    {0xA0, 0xA0, kSpace},           {0x1680, 0x1680, kSpace},       {0x2000, 0x200A, kSpace},
    {0x2028, 0x2029, kSpace},       {0x202F, 0x202F, kSpace},       {0x205F, 0x205F, kSpace},
    {0x3000, 0x3000, kSpace},       {'\n', '\n', kLineBreak},       {'\r', '\r', kLineBreak},
    {0x3040, 0x30FF, kDeepseekCjk}, {0x4E00, 0x9FA5, kDeepseekCjk},
};

}  // namespace

const UnicodeClasses& UnicodeClasses::get() {
  static const UnicodeClasses classes;
  return classes;
}

UnicodeClasses::UnicodeClasses() {
  std::vector<CharClass> flat(0x110000, 0);
  const auto set = [&flat](const CategoryRange& range) {
    for (char32_t c = range.first; c <= range.last; ++c) flat[c] |= range.category;
  };
  for (const auto& range : kCategories) set(range);
  for (const auto& range : kFlags) set(range);

  std::map<std::array<CharClass, 256>, uint16_t> seen;
  for (size_t block = 0; block < block_of_.size(); ++block) {
    std::array<CharClass, 256> content;
    std::copy_n(flat.begin() + static_cast<ptrdiff_t>(block * 256), 256, content.begin());
    const auto [entry, inserted] = seen.emplace(content, static_cast<uint16_t>(blocks_.size()));
    if (inserted) blocks_.push_back(content);
    block_of_[block] = entry->second;
  }
}

}  // namespace fathom::text

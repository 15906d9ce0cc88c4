#include "text/tokenizer/added_tokens.h"

#include <utf8proc.h>

#include <algorithm>

#include "text/tokenizer/unicode_class.h"
#include "text/tokenizer/utf8.h"

namespace fathom::text {
namespace {

char32_t first_character(std::string_view text) {
  return decode_utf8(text.data(), utf8_length(text[0]));
}

size_t last_character_begin(std::string_view text) {
  size_t pos = text.size() - 1;
  while ((static_cast<uint8_t>(text[pos]) & 0xC0) == 0x80) --pos;
  return pos;
}

// \w of Unicode's regex recommendation: alphabetic, mark, decimal digit, connector punctuation, join control.
bool is_word_character(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      break;
  }
  const bool circled_letter = (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
                              (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
  return (UnicodeClasses::get().of(c) & (kLetter | kMark)) != 0 || c == 0x200C || c == 0x200D ||
         circled_letter;
}

bool is_space(char32_t c) {
  return (UnicodeClasses::get().of(c) & kSpace) != 0;
}

bool stands_alone(std::string_view input, size_t begin, size_t end) {
  if (begin > 0 &&
      is_word_character(first_character(input.substr(last_character_begin(input.substr(0, begin)))))) {
    return false;
  }
  return end == input.size() || !is_word_character(first_character(input.substr(end)));
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::sort(tokens_.begin(), tokens_.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.content < b.content; });
  for (const auto& token : tokens_) first_byte_[static_cast<uint8_t>(token.content[0])] = true;
  if (std::count(first_byte_.begin(), first_byte_.end(), true) == 1) {
    only_first_byte_ = static_cast<uint8_t>(tokens_[0].content[0]);
  }
}

size_t AddedTokenFinder::candidate(std::string_view input, size_t pos) const {
  if (only_first_byte_ >= 0)
    return std::min(input.find(static_cast<char>(only_first_byte_), pos), input.size());
  while (pos < input.size() && !first_byte_[static_cast<uint8_t>(input[pos])]) ++pos;
  return pos;
}

const AddedToken* AddedTokenFinder::longest_at(std::string_view input, size_t pos) const {
  // [low, high) are the tokens that start with the `depth` bytes at pos; sorted, so the one equal to them is
  // first.
  auto low = tokens_.begin();
  auto high = tokens_.end();
  const AddedToken* longest = nullptr;
  for (size_t depth = 0; pos + depth < input.size() && low != high; ++depth) {
    const auto byte = static_cast<uint8_t>(input[pos + depth]);
    const auto byte_at = [depth](const AddedToken& token) {
      return token.content.size() > depth ? static_cast<uint8_t>(token.content[depth]) : -1;
    };
    low = std::lower_bound(low, high, byte,
                           [&](const AddedToken& t, int wanted) { return byte_at(t) < wanted; });
    high = std::upper_bound(low, high, byte,
                            [&](int wanted, const AddedToken& t) { return wanted < byte_at(t); });
    if (low != high && low->content.size() == depth + 1) longest = &*low;
  }
  return longest;
}

void AddedTokenFinder::split(std::string_view input, const std::function<void(std::string_view)>& text,
                             const std::function<void(int32_t)>& token) const {
  size_t done = 0;  // everything before it has been handed out
  for (size_t pos = candidate(input, 0); pos < input.size();) {
    const AddedToken* found = longest_at(input, pos);
    if (found == nullptr) {
      pos = candidate(input, pos + 1);
      continue;
    }
    size_t begin = pos;
    size_t end = pos + found->content.size();
    pos = end;
    if (!found->single_word || stands_alone(input, begin, end)) {
      if (found->lstrip) {
        while (begin > done) {
          const size_t before = last_character_begin(input.substr(0, begin));
          if (!is_space(first_character(input.substr(before)))) break;
          begin = before;
        }
        begin = std::max(begin, done);
      }
      if (found->rstrip) {
        while (end < input.size() && is_space(first_character(input.substr(end))))
          end += utf8_length(input[end]);
      }
      if (done < begin) text(input.substr(done, begin - done));
      token(found->id);
      done = end;
    }
    pos = candidate(input, pos);
  }
  if (done < input.size()) text(input.substr(done));
}

}  // namespace fathom::text

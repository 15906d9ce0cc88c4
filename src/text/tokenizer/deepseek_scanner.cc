#include "text/tokenizer/deepseek_scanner.h"

#include "text/tokenizer/utf8.h"

namespace fathom::text {
namespace {

bool is_ascii_letter(char c) {
  return static_cast<unsigned char>((c | 0x20) - 'a') < 26;
}

}  // namespace

const std::vector<std::string>& DeepseekScanner::patterns() {
  static const std::vector<std::string> patterns = {
      R"(\p{N}{1,3})",
      R"([一-龥぀-ゟ゠-ヿ]+)",
      R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|)"
      R"( ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
  };
  return patterns;
}

DeepseekScanner::DeepseekScanner(std::string_view text)
    : pos_(text.data()),
      end_(text.data() + text.size()),
      classes_(UnicodeClasses::get()),
      ascii_(classes_.block(0).data()) {}

inline DeepseekScanner::Character DeepseekScanner::at(const char* p) const {
  const auto lead = static_cast<uint8_t>(*p);
  if (lead < 0x80) return {ascii_[lead], 1};
  const size_t length = utf8_length(*p);
  return {classes_.of(decode_utf8(p, length)), static_cast<uint8_t>(length)};
}

inline const char* DeepseekScanner::skip(const char* p, CharClass classes, Piece piece) const {
  while (p != end_) {
    const Character c = at(p);
    if (!(c.char_class & classes) || piece.ends_at(c.char_class)) break;
    p += c.length;
  }
  return p;
}

const char* DeepseekScanner::scan_number() const {
  const char* p = pos_;
  for (int digits = 0; digits < 3 && p != end_; ++digits) {
    const Character c = at(p);
    if (!(c.char_class & kNumber)) break;
    p += c.length;
  }
  return p;
}

const char* DeepseekScanner::match_space(const char* start, Piece piece) const {
  const char* last = start;        // the last character of the run
  const char* line_end = nullptr;  // after the last line break in it
  const char* p = start;
  while (p != end_) {
    const Character c = at(p);
    if (!(c.char_class & kSpace) || piece.ends_at(c.char_class)) break;
    last = p;
    p += c.length;
    if (c.char_class & kLineBreak) line_end = p;
  }
  if (line_end != nullptr) return line_end;  // \s*[\r\n]+
  const bool piece_ends = p == end_ || piece.ends_at(at(p).char_class);
  // \s+(?!\S) leaves the last space to the word that follows, unless it is the only one.
  return piece_ends || last == start ? p : last;
}

inline const char* DeepseekScanner::match(const char* start, Piece piece) const {
  const Character first = at(start);
  const CharClass c = first.char_class;
  const char* second = start + first.length;
  if (c & (kLetter | kMark)) return skip(second, kLetter | kMark, piece);

  CharClass following = 0;  // the class of the second character, when it is of this piece
  if (second != end_) {
    following = at(second).char_class;
    if (piece.ends_at(following)) following = 0;
  }
  if (c & (kPunctuation | kSymbol)) {
    const char* p = second;
    if (static_cast<uint8_t>(*start) < 0x80 && p != end_ && is_ascii_letter(*p)) {
      while (p != end_ && is_ascii_letter(*p)) ++p;
      return p;
    }
    p = skip(p, kPunctuation | kSymbol, piece);
    return skip(p, kLineBreak, piece);
  }
  if (!(c & kLineBreak) && (following & (kLetter | kMark))) return skip(second, kLetter | kMark, piece);
  if (*start == ' ' && (following & (kPunctuation | kSymbol))) {
    return skip(skip(second, kPunctuation | kSymbol, piece), kLineBreak, piece);
  }
  if (c & kSpace) return match_space(start, piece);
  return start;
}

bool DeepseekScanner::next(std::string_view* word) {
  if (pos_ == end_) return false;
  const char* start = pos_;
  const CharClass first = at(start).char_class;
  const auto take = [&](const char* to) {
    *word = std::string_view(start, static_cast<size_t>(to - start));
    pos_ = to;
    return true;
  };
  if (first & kNumber) return take(scan_number());
  const Piece piece =
      first & kDeepseekCjk ? Piece{kDeepseekCjk, kDeepseekCjk} : Piece{0, kNumber | kDeepseekCjk};
  const char* matched = match(start, piece);
  if (matched != start) return take(matched);

  // No alternative matches here: the word is the text up to the next match or the end of the piece.
  const char* p = start;
  do {
    p += at(p).length;
  } while (p != end_ && !piece.ends_at(at(p).char_class) && match(p, piece) == p);
  return take(p);
}

}  // namespace fathom::text

// The pre-tokenizer of DeepSeek-V3 (also R1 and V3.1) written out by hand: the same words as its three
// regexes give one after the other, at a small part of their cost.
//
//   1. \p{N}{1,3}           splits off numbers, three digits at a time
//   2. [一-龥぀-ゟ゠-ヿ]+     splits off runs of Han and kana
//   3. [ASCII punctuation][A-Za-z]+ | [^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+ | ?[\p{P}\p{S}]+[\r\n]*
//      | \s*[\r\n]+ | \s+(?!\S) | \s+    splits what is between, and the runs of step 2 themselves
//
// Each step sees only the pieces of the step before, so the end of a piece is an end of text to it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer/unicode_class.h"

namespace fathom::text {

class DeepseekScanner {
 public:
  // The regexes above as tokenizer.json writes them, with CR and LF as \r and \n.
  static const std::vector<std::string>& patterns();

  // `text` is valid UTF-8 and must outlive the scanner.
  explicit DeepseekScanner(std::string_view text);

  // The next word into *word; false at the end. The words are not empty and together are the text.
  bool next(std::string_view* word);

 private:
  struct Character {
    CharClass char_class;
    uint8_t length;  // bytes
  };
  // Which characters end the piece of step 2 that is being scanned: those with (class ^ flip) & stop.
  struct Piece {
    CharClass flip;
    CharClass stop;
    bool ends_at(CharClass c) const { return ((c ^ flip) & stop) != 0; }
  };

  Character at(const char* p) const;
  // The end of the run, from p, of characters of this piece that have one of the classes.
  const char* skip(const char* p, CharClass classes, Piece piece) const;
  const char* scan_number() const;
  // The end of the match of step 3 at pos_, or pos_ when there is none.
  const char* match(const char* start, Piece piece) const;
  const char* match_space(const char* start, Piece piece) const;

  const char* pos_;
  const char* end_;
  const UnicodeClasses& classes_;
  const CharClass* ascii_;
};

}  // namespace fathom::text

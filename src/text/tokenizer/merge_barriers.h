// Places inside a word that no merge can cross, because no token has these two characters side by side. The
// word can be encoded in pieces cut there, with the same tokens.
//
// Text without spaces between words, as Chinese, comes as long words that hardly ever repeat; their pieces
// are short, and do.
#pragma once

#include <bitset>
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/tokenizer/utf8.h"
#include "text/tokenizer/vocabulary.h"

namespace fathom::text {

// Immutable; thread safe.
class MergeBarriers {
 public:
  // For every token that `vocabulary` has now.
  explicit MergeBarriers(const Vocabulary& vocabulary);

  // The end of the piece of `word`, valid UTF-8, that starts at the character at `begin`.
  size_t piece_end(std::string_view word, size_t begin) const {
    size_t length = utf8_length(word[begin]);
    char32_t left = decode_utf8(word.data() + begin, length);
    size_t pos = begin + length;
    while (pos < word.size()) {
      length = utf8_length(word[pos]);
      const char32_t right = decode_utf8(word.data() + pos, length);
      if (!may_join(left, right, byte_pair(word[pos - 1], word[pos]))) break;
      left = right;
      pos += length;
    }
    return pos;
  }

 private:
  static constexpr int kLogPairs = 20;

  static size_t byte_pair(char left, char right) {
    return static_cast<size_t>(static_cast<uint8_t>(left)) << 8 | static_cast<uint8_t>(right);
  }
  static size_t pair_bit(char32_t left, char32_t right) {
    return (static_cast<uint64_t>(left) << 32 | right) * 0x9E3779B97F4A7C15u >> (64 - kLogPairs);
  }
  bool may_join(char32_t left, char32_t right, size_t bytes) const {
    return pairs_[pair_bit(left, right)] || joins_part_after_[left] || joins_part_before_[right] ||
           joined_parts_[bytes];
  }
  void add_token(std::string_view token);

  // Characters side by side in some token, by hash: a false yes costs time, not correctness.
  std::vector<bool> pairs_;
  // Characters that some token has just before (after) a part of a character.
  std::vector<bool> joins_part_after_;
  std::vector<bool> joins_part_before_;
  // The two bytes where some token has a part of a character next to another part.
  std::bitset<0x10000> joined_parts_;
};

}  // namespace fathom::text

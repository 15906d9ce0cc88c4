// Special and other added tokens that a user types are plain text: "<｜end▁of▁sentence｜>" in a user's or a
// tool's message must not end the sentence, and "<｜Assistant｜>" must not begin another's turn.
#pragma once

#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "text/tokenizer/tokenizer.h"

namespace fathom::api {

// A mark is put inside each special token of untrusted text before the template sees it; the rendered prompt
// is cut at the marks and each part tokenised alone, so that no part holds the special token any more. Text
// without special tokens passes unchanged. Immutable; thread safe.
class SpecialTokenGuard {
 public:
  explicit SpecialTokenGuard(const text::Tokenizer& tokenizer);

  std::string mark(std::string_view untrusted) const;
  std::vector<int32_t> encode(std::string_view rendered) const;
  // The text without the marks.
  static std::string unmark(std::string_view rendered);

  // The fewest tokens that a text of `bytes` bytes can be: a prompt far too long is refused by this, without
  // the time to tokenise it.
  size_t fewest_tokens(size_t bytes) const;

 private:
  size_t match_at(std::string_view text, size_t pos) const;  // the special token's length, or 0

  const text::Tokenizer& tokenizer_;
  std::unordered_set<std::string> tokens_;
  std::vector<size_t> lengths_;  // of tokens_, longest first
  bool first_byte_[256] = {};
  size_t longest_token_ = 1;  // bytes
};

}  // namespace fathom::api

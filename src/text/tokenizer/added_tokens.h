// The added tokens of tokenizer.json: strings that are found in the text as they stand and become one token
// each, before anything else looks at the text.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::text {

struct AddedToken {
  int32_t id = 0;
  std::string content;       // not empty
  bool special = false;      // left out of decoded text on request
  bool normalized = false;   // looked for after normalisation
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space to its left with it
  bool rstrip = false;       // and to its right
};

// Finds the tokens of one set; at each place the longest. Immutable; thread safe.
class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  explicit AddedTokenFinder(std::vector<AddedToken> tokens);

  bool empty() const { return tokens_.empty(); }

  // Cuts valid UTF-8 into text and tokens, from left to right. `text` is never called with an empty piece.
  void split(std::string_view input, const std::function<void(std::string_view)>& text,
             const std::function<void(int32_t)>& token) const;

 private:
  // The next place, from `pos`, at which one of the tokens may start; input.size() for none.
  size_t candidate(std::string_view input, size_t pos) const;
  // The longest token at `pos`, or null.
  const AddedToken* longest_at(std::string_view input, size_t pos) const;

  std::vector<AddedToken> tokens_;      // sorted by content
  std::array<bool, 256> first_byte_{};  // of any token
  int only_first_byte_ = -1;            // when all start with the same byte
};

}  // namespace fathom::text

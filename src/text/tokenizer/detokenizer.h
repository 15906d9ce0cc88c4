// Detokenising a stream: text comes out as soon as its characters are whole.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "text/tokenizer/tokenizer.h"

namespace fathom::text {

// One per stream; not thread safe. The tokenizer must outlive it. However the ids are cut into pushes, the
// deltas together are Tokenizer::decode of all of them.
class Detokenizer {
 public:
  Detokenizer(const Tokenizer& tokenizer, bool skip_special)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}

  // The text that these ids complete: valid UTF-8, maybe empty. Holds back at most 3 bytes.
  std::string push(std::span<const int32_t> ids);

  // What is left when no more ids come: a character that was never completed, as U+FFFD, or nothing.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  const bool skip_special_;
  std::string pending_;  // the start of a character
};

}  // namespace fathom::text

// Detokenising a stream: text comes out as soon as its characters are whole.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "text/tokenizer/tokenizer.h"

namespace fathom::text {

// One per stream; not thread safe. The tokenizer must outlive it. However the ids are cut into pushes, the
// deltas together are Tokenizer::decode of all of them.
class Detokenizer {
 public:
  // `kept`: special tokens that are not left out with the others.
  Detokenizer(const Tokenizer& tokenizer, bool skip_special, std::vector<int32_t> kept = {})
      : tokenizer_(tokenizer), skip_special_(skip_special), kept_(std::move(kept)) {}

  // The text that these ids complete: valid UTF-8, maybe empty. Holds back at most 3 bytes.
  std::string push(std::span<const int32_t> ids);

  // What is left when no more ids come: a character that was never completed, as U+FFFD, or nothing.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  const bool skip_special_;
  const std::vector<int32_t> kept_;
  std::string pending_;  // the start of a character
};

}  // namespace fathom::text

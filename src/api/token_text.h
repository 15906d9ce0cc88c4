// Tokens of one choice become text, a stop string ends it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "text/tokenizer/detokenizer.h"
#include "text/tokenizer/stop_matcher.h"
#include "text/tokenizer/tokenizer.h"

namespace fathom::api {

struct TextOptions {
  std::shared_ptr<const text::StopStrings> stop;  // null: none
  bool no_stop_trim = false;                      // a stop string or stop token stays in the text
  bool skip_special_tokens = true;
  std::vector<int32_t> kept_special_tokens;  // that stay in the text all the same
};

// Not thread safe. `tokenizer` must outlive it.
class TokenText {
 public:
  TokenText(const text::Tokenizer& tokenizer, const TextOptions& options);

  // The text that is certain after `token`: whole characters, and nothing that may begin a stop string.
  // Empty once `matched`.
  std::string add(int32_t token);
  // The rest, when no more tokens come.
  std::string finish();
  // The stop string that ended the text.
  const std::optional<std::string>& matched() const { return matcher_.matched(); }

 private:
  text::Detokenizer detokenizer_;
  text::StopMatcher matcher_;
};

// A token as the logprob lists show it: its text (U+FFFD for half characters; special tokens by name) and its
// bytes.
std::string token_string(const text::Tokenizer& tokenizer, int32_t token);
nlohmann::ordered_json token_bytes_json(const text::Tokenizer& tokenizer, int32_t token);

}  // namespace fathom::api

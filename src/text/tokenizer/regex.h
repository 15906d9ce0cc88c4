// A regular expression of tokenizer.json, in the dialect that Hugging Face tokenizers uses (Oniguruma's own).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

struct re_pattern_buffer;

namespace fathom::text {

// Immutable after compile(); for_each_match may run on many threads at once.
class Regex {
 public:
  // `pattern` is UTF-8. A pattern that does not compile is kInvalidArgument with the engine's reason.
  static Result<Regex> compile(std::string_view pattern);

  // A regex that matches `literal` itself.
  static Result<Regex> compile_literal(std::string_view literal);

  // Calls match(begin, end), byte offsets, for each match in valid UTF-8, from left to right. Matches do not
  // overlap; an empty match right after the last match is skipped. A pattern that exceeds the engine's retry
  // limit finds nothing more.
  void for_each_match(std::string_view text, const std::function<void(size_t, size_t)>& match) const;

 private:
  struct Free {
    void operator()(re_pattern_buffer* regex) const;
  };
  explicit Regex(re_pattern_buffer* regex) : regex_(regex) {}

  std::unique_ptr<re_pattern_buffer, Free> regex_;
};

}  // namespace fathom::text

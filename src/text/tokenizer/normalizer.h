// The normalizer of tokenizer.json: what is done to the text before it is cut into words.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "text/tokenizer/regex.h"

namespace fathom::text {

// Immutable after parse(); apply() may run on many threads at once.
class Normalizer {
 public:
  // From the value of "normalizer"; null does nothing. NFC, NFD, NFKC, NFKD, Replace, Prepend and Sequence
  // are known, any other type is kUnsupported and named.
  static Result<Normalizer> parse(const nlohmann::json& json);

  bool empty() const { return steps_.empty(); }
  // `text` is valid UTF-8, and so is the result.
  std::string apply(std::string_view text) const;

 private:
  struct UnicodeForm {
    bool compose;
    bool compatibility;
  };
  struct Replace {
    Regex pattern;
    std::string content;
  };
  struct Prepend {
    std::string prefix;
  };

  Result<void> add(const nlohmann::json& json, int depth);

  std::vector<std::variant<UnicodeForm, Replace, Prepend>> steps_;
};

}  // namespace fathom::text

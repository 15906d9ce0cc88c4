// The pre-tokenizer of tokenizer.json: cuts text into the words within which byte pairs are merged.
#pragma once

#include <deque>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"
#include "text/tokenizer/class_pattern.h"
#include "text/tokenizer/deepseek_scanner.h"
#include "text/tokenizer/regex.h"

namespace fathom::text {

// What becomes of the pieces that a pattern matched.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

// Immutable after parse(); for_each_word may run on many threads at once.
class PreTokenizer {
 public:
  // From the value of "pre_tokenizer". It must end in ByteLevel; a type that Fathom does not know is
  // kUnsupported and named. DeepSeek-V3's own splits are recognised and scanned by DeepseekScanner, other
  // simple ones by ClassPattern, the rest by the regex engine.
  static Result<PreTokenizer> parse(const nlohmann::json& json);

  // As parse, but every regex goes through the engine: the oracle for the tests of the other two.
  static Result<PreTokenizer> parse_as_regex(const nlohmann::json& json);

  // Calls word(std::string_view) for each word of `text` (valid UTF-8), from left to right. The views are
  // valid during the call.
  template <class Word>
  void for_each_word(std::string_view text, Word&& word) const {
    if (deepseek_) {
      DeepseekScanner scanner(text);
      std::string_view next;
      while (scanner.next(&next)) word(next);
      return;
    }
    std::deque<std::string> storage;
    for (const std::string_view piece : split(text, &storage)) word(piece);
  }

  bool uses_scanner() const { return deepseek_; }

 private:
  struct Split {
    std::variant<Regex, ClassPattern, SpaceAtLineEnd> pattern;
    std::string source;  // the regex as written; empty for anything else
    SplitBehavior behavior;
    bool invert;
  };

  explicit PreTokenizer(bool regex_only) : regex_only_(regex_only) {}

  static Result<PreTokenizer> parse_with(const nlohmann::json& json, bool regex_only);
  Result<void> add(const nlohmann::json& json, int depth);
  Result<void> add_split(const nlohmann::json& json);
  Result<void> add_byte_level(const nlohmann::json& json);
  bool is_deepseek() const;
  std::vector<std::string_view> split(std::string_view text, std::deque<std::string>* storage) const;
  static void apply(const Split& split, std::string_view piece, std::vector<std::string_view>* out);

  bool regex_only_;
  std::vector<Split> splits_;
  std::vector<Split> byte_level_regex_;  // ByteLevel's own split, after the prefix space; at most one
  bool add_prefix_space_ = false;
  bool byte_level_ = false;
  bool deepseek_ = false;
};

}  // namespace fathom::text

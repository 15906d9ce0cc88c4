// Structural tags: text with parts of a given form in it. The reference's two ways to write them:
//   {"structures": [{"begin", "schema", "end"}], "triggers": [...]}: free text, in which a trigger must go on
//   as one of the structures that begin with it;
//   {"format": {"type": ...}}, a tree of const_string {value}, json_schema {json_schema}, regex {pattern},
//   grammar {grammar}, any_text {excludes}, sequence and or {elements}, tag {begin, content, end},
//   triggered_tags {triggers, tags, at_least_one, stop_after_first}, tags_with_separator {tags, separator,
//   at_least_one, stop_after_first}.
// Markers of the vocabulary (<｜tool▁calls▁begin｜>) in these texts are read as the tokens that they are.
#pragma once

#include <deque>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "text/grammar/json_rules.h"
#include "text/tokenizer/tokenizer.h"

namespace fathom::text {

// Used while one grammar is built. The given JSON must outlive it.
class StructuralTags {
 public:
  static constexpr size_t kMaxTags = 256;      // in one list
  static constexpr size_t kMaxTriggers = 512;  // characters, of one list together
  static constexpr int kMaxDepth = 32;

  StructuralTags(GrammarBuilder& builder, JsonRules& rules, const Tokenizer& tokenizer)
      : builder_(builder), rules_(rules), tokenizer_(tokenizer) {}

  // The whole object, with "format" or with "structures" and "triggers". Errors name the path.
  Result<Fragment> compile(const nlohmann::ordered_json& tag);
  Result<Fragment> format(const nlohmann::ordered_json& format, const std::string& path);

 private:
  using Json = nlohmann::ordered_json;
  // A code point, or -1 - id of a marker.
  using Symbols = std::vector<int64_t>;
  struct Tag {
    std::string begin;
    const Json* content = nullptr;
    std::vector<std::string> ends;
    std::string path;
  };

  Result<Tag> read_tag(const Json& tag, const std::string& path) const;
  Result<std::vector<Tag>> read_tags(const Json& format, const std::string& path) const;
  // From `begin` characters of the tag's beginning on.
  Result<Fragment> tag(const Tag& tag, size_t begin);
  Result<Fragment> triggered(const std::vector<std::string>& triggers, const std::vector<Tag>& tags,
                             bool at_least_one, bool stop_after_first, const std::string& path);

  Symbols symbols_of(const std::string& text) const;
  Fragment literal(const std::string& text);
  // Text without markers up to the first of `stops`, each of which goes on to its state; it may end before,
  // at `open_end` unless that is -1. A stop that goes on to -1 may not come. Returns the way in.
  Result<int32_t> text_until(const std::vector<std::string>& stops, const std::vector<int32_t>& goes_on,
                             int32_t open_end, const std::string& path);

  GrammarBuilder& builder_;
  JsonRules& rules_;
  const Tokenizer& tokenizer_;
  int depth_ = 0;
};

}  // namespace fathom::text

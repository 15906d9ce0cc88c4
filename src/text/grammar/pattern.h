// Regular expressions and EBNF as trees, and how they become fragments of an automaton.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "text/grammar/grammar_builder.h"

namespace fathom::text {

struct Pattern {
  enum class Kind { kSet, kSequence, kChoice, kRepeat, kRule };
  Kind kind = Kind::kSequence;
  CodePoints set;                 // kSet: one character
  std::vector<Pattern> children;  // an empty kSequence is the empty text
  int min = 0, max = 0;           // kRepeat; max < 0: without end
  std::string rule;               // kRule
};

// A regular expression as JSON Schema and Python have it: without look-around, back references and word
// borders. `^` and `$` only at the ends of the whole or of a branch of it.
struct RegexPattern {
  struct Branch {
    Pattern pattern;
    bool from_begin = false;  // "^"
    bool to_end = false;      // "$"
  };
  std::vector<Branch> branches;
};
// kInvalidArgument says what and where.
Result<RegexPattern> parse_regex(std::string_view text);

// Rules "name ::= ...", with "literals", [classes], (groups), |, * + ? {m,n} and # comments.
Result<std::map<std::string, Pattern>> parse_ebnf(std::string_view text);

// How a set of characters and a rule become fragments.
struct PatternEmitter {
  GrammarBuilder& builder;
  std::function<Fragment(const CodePoints&)> character;
  std::function<Fragment(const std::string&)> rule;

  Fragment emit(const Pattern& pattern) const;
  // The whole text must match, or, with `anywhere`, a part of it unless the branch says otherwise.
  Fragment emit(const RegexPattern& regex, bool anywhere) const;
};

}  // namespace fathom::text

// The rules of JSON itself, which every schema builds on. What they allow is JSON as models write it: white
// space between tokens is at most a blank, or a line break and an indentation, so that no answer is endless
// blanks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/grammar/grammar_builder.h"

namespace fathom::text {

// Declares a rule where it is first used. Used while one grammar is built.
class JsonRules {
 public:
  static constexpr int kMaxDigits = 20;  // of an integer, and of a fraction

  explicit JsonRules(GrammarBuilder& builder) : builder_(builder) {}

  Fragment blanks();
  Fragment value();   // any
  Fragment object();  // any
  Fragment array();   // any
  Fragment string();
  Fragment number();
  Fragment integer();
  // One character inside a string, of any or of a set, written in each way JSON has for it.
  Fragment character();
  Fragment character_of(const CodePoints& set);
  // A member's name and colon.
  Fragment key(std::string_view name);
  // A string that is none of `names`, and the colon.
  Fragment other_key(const std::vector<std::string>& names);

 private:
  template <class Body>
  Fragment rule(int32_t* number, const char* name, Body body) {
    if (*number < 0) {
      *number = builder_.declare_rule(name);
      builder_.define_rule(*number, body());
    }
    return builder_.call(*number);
  }
  Fragment digits(int min, int max);
  Fragment other_key_from(const std::vector<std::u32string>& names, size_t depth);

  GrammarBuilder& builder_;
  int32_t blanks_ = -1, value_ = -1, object_ = -1, array_ = -1, string_ = -1, number_ = -1, integer_ = -1,
          escape_ = -1, plain_ = -1;
};

}  // namespace fathom::text

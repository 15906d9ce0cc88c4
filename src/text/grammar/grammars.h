// The grammars that requests ask for.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "text/grammar/grammar_builder.h"
#include "text/tools/tool_splitter.h"

namespace fathom::text {

inline constexpr size_t kMaxGrammarBytes = size_t{256} << 10;  // of a schema, a regular expression, an EBNF

Result<Automaton> json_object_grammar();
// `best_effort`: keywords that are not enforced are dropped, else they are refused.
Result<Automaton> json_schema_grammar(const nlohmann::ordered_json& schema, bool best_effort = false);
// The whole output matches.
Result<Automaton> regex_grammar(std::string_view regex);
// Begins with the rule "root".
Result<Automaton> ebnf_grammar(std::string_view text);
// structural_tags.h says what it looks like.
Result<Automaton> structural_tag_grammar(const Tokenizer& tokenizer, const nlohmann::ordered_json& tag);

// The same as parts of others.
Result<Fragment> regex_fragment(GrammarBuilder& builder, std::string_view regex);
Result<Fragment> ebnf_fragment(GrammarBuilder& builder, std::string_view text);

struct ToolGrammar {
  struct Tool {
    std::string name;
    nlohmann::ordered_json parameters;  // a schema, or null: any object
    bool strict = false;                // false: any object where the schema has what is not enforced
  };
  ToolFormat format = ToolFormat::kNone;  // kV3 or kV31; kUnsupported for others
  std::vector<Tool> tools;
  bool required = false;  // a call is all that may come; false: text, then calls perhaps
  bool parallel = true;   // more calls than one
};
Result<Automaton> tool_call_grammar(const Tokenizer& tokenizer, const ToolGrammar& grammar);

}  // namespace fathom::text

// The demo model's vocabulary, and short ways to grammars, for this folder's tests.
#pragma once

#include <nlohmann/json.hpp>

#include "text/grammar/grammar_tokens.h"
#include "text/grammar/grammars.h"

namespace fathom::text {

inline constexpr int32_t kEos = 1;

inline const Tokenizer& demo() {
  static const auto tokenizer = Tokenizer::load(FATHOM_SOURCE_DIR "/models/demo").value();
  return *tokenizer;
}

inline std::shared_ptr<GrammarTokens> demo_tokens() {
  static const auto tokens = std::make_shared<GrammarTokens>(demo(), std::vector<int32_t>{kEos});
  return tokens;
}

inline Automaton schema(const char* text) {
  return json_schema_grammar(nlohmann::ordered_json::parse(text)).value();
}

}  // namespace fathom::text

// A compiled grammar, and what it says about the next token.
//
// The tokens that a state allows on its own, and those that go on into its caller, are found once for each
// state of the automaton (BaseMasks) and kept; a step only adds up what its ways allow and follows the few
// tokens that leave a rule. States that look alike in different grammars, the inside of a JSON string above
// all, share what was found (GrammarTokens).
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/token_mask.h"
#include "text/grammar/configurations.h"
#include "text/grammar/grammar_builder.h"
#include "text/grammar/token_trie.h"

namespace fathom::text {

// The tokens that a state allows, as far as its own rule and the rules it calls tell.
struct BaseMask {
  std::vector<int32_t> tokens;  // few, else
  std::vector<uint64_t> bits;   // all of them
  // Nodes of the trie, with more below, at which the rule is over; its caller says what may follow.
  std::vector<int32_t> exits;
};

// A vocabulary as grammars see it. Shared by all grammars; thread safe.
class GrammarTokens {
 public:
  GrammarTokens(const Tokenizer& tokenizer, std::vector<int32_t> eos_ids);

  const Tokenizer& tokenizer() const { return tokenizer_; }
  const TokenTrie& trie() const { return trie_; }
  const std::vector<int32_t>& eos_ids() const { return eos_ids_; }

  // By a text that says all about a state and what it reaches.
  std::shared_ptr<const BaseMask> find(const std::string& shape) const;
  void keep(const std::string& shape, std::shared_ptr<const BaseMask> mask);

 private:
  static constexpr size_t kMaxKept = 1024;

  const Tokenizer& tokenizer_;
  const TokenTrie trie_;
  const std::vector<int32_t> eos_ids_;
  mutable std::mutex mutex_;
  std::unordered_map<std::string, std::shared_ptr<const BaseMask>> by_shape_;
};

// Thread safe.
class Grammar {
 public:
  Grammar(std::shared_ptr<GrammarTokens> tokens, Automaton automaton);

  const GrammarTokens& tokens() const { return *tokens_; }
  const Automaton& automaton() const { return automaton_; }
  // Of a state; made when first asked for. An error when that takes too long.
  Result<std::shared_ptr<const BaseMask>> base_mask(int32_t state);

 private:
  std::string shape_of(int32_t state) const;
  Result<std::shared_ptr<const BaseMask>> make_base_mask(int32_t state) const;

  const std::shared_ptr<GrammarTokens> tokens_;
  const Automaton automaton_;
  std::mutex mutex_;
  std::unordered_map<int32_t, std::shared_ptr<const BaseMask>> base_masks_;
};

// The grammar's part of an output: from the start, or after the token that ends the thoughts.
class GrammarMaskSource final : public TokenMaskSource {
 public:
  // `after_token`: nothing is constrained up to and with it; -1: all is.
  GrammarMaskSource(std::shared_ptr<Grammar> grammar, int32_t after_token)
      : grammar_(std::move(grammar)), after_token_(after_token) {}
  std::unique_ptr<TokenMask> begin() const override;

 private:
  const std::shared_ptr<Grammar> grammar_;
  const int32_t after_token_;
};

// Does the grammar read all of `text`? For tests and tools; markers are only read as tokens.
bool matches(const Automaton& automaton, std::string_view text);

}  // namespace fathom::text

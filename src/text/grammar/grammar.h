// A compiled grammar, and what it says about the next token.
//
// What a state of the automaton allows is found once and kept, in layers: what it allows by itself; then, for
// each state its rule may return to, what comes with those tokens that leave the rule; and so on outwards, as
// far as a token reaches. A step only adds up the layers along its stacks. States that look alike in
// different grammars, the inside of a JSON string above all, share their first layer (GrammarTokens).
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/token_mask.h"
#include "text/grammar/configurations.h"
#include "text/grammar/grammar_builder.h"
#include "text/grammar/grammar_tokens.h"
#include "text/grammar/plain_reach.h"

namespace fathom::text {

// Thread safe: one thread at a time finds masks, others wait.
class Grammar {
 public:
  static constexpr size_t kMaxMaskBytes = size_t{32} << 20;  // kept of masks; beyond, all are found anew

  Grammar(std::shared_ptr<GrammarTokens> tokens, Automaton automaton);

  const GrammarTokens& tokens() const { return *tokens_; }
  const Automaton& automaton() const { return automaton_; }

  // Sets the tokens that a way allows. `budget` is the work that may be done, as Configurations
  // counts it; what was done is taken from it. An error when it does not suffice.
  Result<void> allow(const Configurations& configurations, const Configurations::Way& way, uint64_t* budget,
                     std::span<uint64_t> allowed);
  // Finds what states allow before anybody waits for it, as far as the budget goes.
  void prepare(uint64_t budget);
  // Of the automaton, and of what is kept now.
  size_t bytes() const { return automaton_bytes_ + mask_bytes_; }

 private:
  struct Layer {
    std::shared_ptr<const BaseMask> mask;
    std::unordered_map<int32_t, std::unique_ptr<Layer>> callers;  // by the state that is returned to
  };

  // With mutex_ held.
  Result<Layer*> layer_of(int32_t state, uint64_t* budget);
  Result<Layer*> layer_after(Layer* layer, int32_t state, uint64_t* budget);
  Result<std::shared_ptr<const BaseMask>> find_base(int32_t state, uint64_t* budget);
  void start_work(uint64_t budget);
  // Takes the work from the budget; an error when there was too much.
  Result<void> end_work(uint64_t* budget);
  std::string shape_of(int32_t state) const;
  void forget_when_large();

  const std::shared_ptr<GrammarTokens> tokens_;
  const Automaton automaton_;
  const PlainReach plain_;
  std::vector<bool> returns_;  // by state: its rule is called
  size_t automaton_bytes_ = 0;
  std::mutex mutex_;
  Configurations configurations_;  // of states alone, without their callers
  std::unordered_map<int32_t, std::unique_ptr<Layer>> layers_;
  std::atomic<size_t> mask_bytes_ = 0;
};

// The grammar's part of an output: from the start, or after the token that ends the thoughts.
class GrammarMaskSource final : public TokenMaskSource {
 public:
  // `after_token`: all may come up to and with it, but for the end of the output; -1: nothing goes before.
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

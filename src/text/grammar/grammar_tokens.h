// A vocabulary as grammars see it: its tokens as tries, and what is known of states that look alike in many
// grammars. Shared by all grammars.
#pragma once

#include <array>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/grammar/token_trie.h"

namespace fathom::text {

// Tokens, as a list where they are few and as bits where they are many.
class TokenSet {
 public:
  TokenSet() = default;
  TokenSet(std::vector<int32_t> tokens, size_t words);
  // `bits` and `tokens` together.
  TokenSet(std::vector<uint64_t> bits, const std::vector<int32_t>& tokens);

  // Sets the tokens' bits, as far as there are words for them.
  void add_to(std::span<uint64_t> allowed) const;
  bool is_large() const { return !bits_.empty(); }
  size_t bytes() const { return tokens_.size() * 4 + bits_.size() * 8; }

 private:
  std::vector<int32_t> tokens_;
  std::vector<uint64_t> bits_;
};
void set_bit(std::span<uint64_t> bits, int32_t token);

// What a state allows, as far as its own rule and the rules that this one calls tell.
struct BaseMask {
  TokenSet tokens;
  // Nodes of `trie`, with more below, at which the rule is over; its caller says what may follow.
  std::vector<int32_t> exits;
  const TokenTrie* trie = nullptr;
  size_t bytes() const { return tokens.bytes() + exits.size() * 4 + sizeof(BaseMask); }
};

// Characters that stand in a JSON string as they are: most tokens are made of nothing else. Where all of them
// may come, nothing need be walked to know of these tokens.
bool is_plain_ascii(uint8_t byte);

// Thread safe.
class GrammarTokens {
 public:
  static constexpr int kMaxPlain = 16;  // characters

  GrammarTokens(const Tokenizer& tokenizer, std::vector<int32_t> eos_ids);

  const Tokenizer& tokenizer() const { return tokenizer_; }
  const std::vector<int32_t>& eos_ids() const { return eos_ids_; }
  size_t words() const { return plain_[0].size(); }
  const TokenTrie& all() const { return all_; }
  // The tokens that are not 1 to kMaxPlain plain characters, ...
  const TokenTrie& others() const { return others_; }
  // ... and those of 1 to `count` of them.
  const std::vector<uint64_t>& plain_up_to(int count) const { return plain_[static_cast<size_t>(count)]; }

  // By a text that says all about a state and what it reaches; null: not known. The last used ones are kept.
  std::shared_ptr<const BaseMask> find(const std::string& shape) const;
  void keep(const std::string& shape, std::shared_ptr<const BaseMask> mask);
  static constexpr size_t kMaxKept = 1024;

 private:
  const Tokenizer& tokenizer_;
  const std::vector<int32_t> eos_ids_;
  const TokenTrie all_, others_;
  std::array<std::vector<uint64_t>, kMaxPlain + 1> plain_;
  mutable std::mutex mutex_;
  mutable std::list<std::pair<std::string, std::shared_ptr<const BaseMask>>> used_;  // the last one first
  std::unordered_map<std::string_view, decltype(used_)::iterator> by_shape_;         // keys of used_
};

}  // namespace fathom::text

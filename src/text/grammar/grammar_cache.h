// Compiled grammars, so that requests which ask for the same share one. Thread safe.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include "text/grammar/grammar.h"

namespace fathom::text {

class GrammarCache {
 public:
  static constexpr size_t kMaxKept = 128;                 // the last used ones, ...
  static constexpr size_t kMaxBytes = size_t{256} << 20;  // ... and no more than this
  static constexpr uint64_t kPrepareBudget = 2'000'000;   // some ten milliseconds, off the step loop

  GrammarCache(const Tokenizer& tokenizer, std::vector<int32_t> eos_ids)
      : tokens_(std::make_shared<GrammarTokens>(tokenizer, std::move(eos_ids))) {}

  // The grammar called `key`; `make` compiles it, on the caller's thread, when there is none yet.
  Result<std::shared_ptr<Grammar>> get(const std::string& key,
                                       const std::function<Result<Automaton>()>& make);

 private:
  const std::shared_ptr<GrammarTokens> tokens_;
  std::mutex mutex_;
  std::list<std::pair<std::string, std::shared_ptr<Grammar>>> used_;  // the last one first
  std::unordered_map<std::string, decltype(used_)::iterator> by_key_;
};

}  // namespace fathom::text

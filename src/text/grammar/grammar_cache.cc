#include "text/grammar/grammar_cache.h"

namespace fathom::text {

Result<std::shared_ptr<Grammar>> GrammarCache::get(const std::string& key,
                                                   const std::function<Result<Automaton>()>& make) {
  {
    std::lock_guard lock(mutex_);
    const auto it = by_key_.find(key);
    if (it != by_key_.end()) {
      used_.splice(used_.begin(), used_, it->second);
      return it->second->second;
    }
  }
  FATHOM_ASSIGN(Automaton automaton, make());
  auto grammar = std::make_shared<Grammar>(tokens_, std::move(automaton));
  grammar->prepare(kPrepareBudget);
  std::lock_guard lock(mutex_);
  if (by_key_.contains(key)) return by_key_.at(key)->second;  // another thread was faster
  used_.emplace_front(key, grammar);
  by_key_[key] = used_.begin();
  // Requests that still use a grammar keep it.
  size_t bytes = 0;
  size_t kept = 0;
  for (const auto& [unused, one] : used_) {
    bytes += one->bytes();
    if (kept > 0 && (kept == kMaxKept || bytes > kMaxBytes)) break;
    ++kept;
  }
  for (; used_.size() > kept; used_.pop_back()) by_key_.erase(used_.back().first);
  return grammar;
}

}  // namespace fathom::text

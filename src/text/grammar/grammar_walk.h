// Walking a trie of tokens with an automaton.
#pragma once

#include <vector>

#include "text/grammar/configurations.h"
#include "text/grammar/token_trie.h"

namespace fathom::text {

// Walks the trie's nodes [first, last), which are below one node (or all), from `start`. Calls
// `allow(node, configuration)` for each node that can be reached. False: too much work, the configurations
// are exhausted.
template <class Allow>
bool walk(const TokenTrie& trie, int32_t first, int32_t last, Configurations* configurations, int32_t start,
          Allow allow) {
  constexpr size_t kMaxConfigurations = 32'768;  // some hundred bytes each
  if (first >= last || start == Configurations::kDead) return !configurations->exhausted();
  const auto& nodes = trie.nodes();
  const int base = nodes[static_cast<size_t>(first)].depth;
  thread_local std::vector<int32_t> path;
  path.assign(1, start);
  uint64_t visited = 0;
  for (int32_t i = first; i < last; ++visited) {
    const TokenTrie::Node& node = nodes[static_cast<size_t>(i)];
    const auto depth = static_cast<size_t>(node.depth - base);
    const int32_t configuration = configurations->next(path[depth], node.byte);
    if (configuration == Configurations::kDead) {
      i = node.end;
      continue;
    }
    allow(i, configuration);
    path.resize(depth + 1);
    path.push_back(configuration);
    ++i;
    if (configurations->count() > kMaxConfigurations) configurations->exhaust();
    if (configurations->exhausted()) return false;
  }
  configurations->spend(visited);
  return !configurations->exhausted();
}

}  // namespace fathom::text

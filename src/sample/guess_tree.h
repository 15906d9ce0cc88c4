// Tokens guessed after a sequence's last one: a tree, since several may be tried for the same place.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fathom::sample {

// Nodes in depth-first order: a node's parent comes before it, and a node that does not follow its parent
// comes after all that hangs on its elder siblings. In a chain each node's parent is the one before.
struct GuessTree {
  static constexpr int32_t kRoot = -1;  // as a parent: the sequence's last token
  static constexpr int32_t kNone = -2;

  std::vector<int32_t> tokens, parents;  // [node]

  static GuessTree chain(std::span<const int32_t> tokens) {
    GuessTree tree;
    for (const int32_t token : tokens) tree.extend(token);
    return tree;
  }

  int32_t size() const { return static_cast<int32_t>(tokens.size()); }
  bool empty() const { return tokens.empty(); }
  void clear() {
    tokens.clear();
    parents.clear();
  }
  void add(int32_t token, int32_t parent) {
    tokens.push_back(token);
    parents.push_back(parent);
  }
  // After the last node.
  void extend(int32_t token) { add(token, size() - 1); }
  // The child of `node` that is `token`, or kNone.
  int32_t child(int32_t node, int32_t token) const {
    for (int32_t i = node + 1; i < size(); ++i) {
      if (parents[static_cast<size_t>(i)] == node && tokens[static_cast<size_t>(i)] == token) return i;
    }
    return kNone;
  }
  // The first of what hangs on `node`, or kNone.
  int32_t first_child(int32_t node) const {
    for (int32_t i = node + 1; i < size(); ++i) {
      if (parents[static_cast<size_t>(i)] == node) return i;
    }
    return kNone;
  }
  // The tokens of what hangs on `node`, in order, appended.
  void children(int32_t node, std::vector<int32_t>* found) const {
    for (int32_t i = node + 1; i < size(); ++i) {
      if (parents[static_cast<size_t>(i)] == node) found->push_back(tokens[static_cast<size_t>(i)]);
    }
  }
  // 1 for what hangs on the root.
  int32_t depth(int32_t node) const {
    int32_t depth = 0;
    for (; node != kRoot; node = parents[static_cast<size_t>(node)]) ++depth;
    return depth;
  }
};

}  // namespace fathom::sample

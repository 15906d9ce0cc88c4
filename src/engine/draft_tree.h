// The guesses of one sequence while its draft grows: for each place several candidates, of which the most
// likely ones are drafted further and, in the end, the most likely ones of all are verified.
#pragma once

#include <cstdint>
#include <vector>

#include "sample/guess_tree.h"

namespace fathom::engine {

class DraftTree {
 public:
  static constexpr int32_t kRoot = sample::GuessTree::kRoot;

  void clear() { nodes_.clear(); }
  // A token after `parent`, whose probability there has this logarithm. Returns its id; ids count up.
  int32_t add(int32_t parent, int32_t token, float logprob);

  int32_t size() const { return static_cast<int32_t>(nodes_.size()); }
  int32_t token(int32_t id) const { return nodes_[static_cast<size_t>(id)].token; }
  int32_t parent(int32_t id) const { return nodes_[static_cast<size_t>(id)].parent; }

  // The `count` most likely of the ids from `begin` on, the most likely first. A guess is as likely as its
  // whole branch; of equals the first one added comes first. Valid until the next call.
  const std::vector<int32_t>& best(int32_t begin, int32_t count);
  // The `count` most likely of all as a tree, the more likely of siblings first. Valid until the next call.
  const sample::GuessTree& tree(int32_t count);

 private:
  struct Node {
    int32_t token, parent;
    float logprob;  // of the branch
  };
  void hang(int32_t parent);  // the best ones below it onto tree_

  std::vector<Node> nodes_;
  // Kept for their memory.
  std::vector<int32_t> best_, places_;
  sample::GuessTree tree_;
};

}  // namespace fathom::engine

#include "engine/draft_tree.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace fathom::engine {

int32_t DraftTree::add(int32_t parent, int32_t token, float logprob) {
  const float before = parent == kRoot ? 0.0F : nodes_[static_cast<size_t>(parent)].logprob;
  // No child is more likely than its parent, and what is no number is not likely.
  float branch = before + std::min(logprob, 0.0F);
  if (std::isnan(branch)) branch = -std::numeric_limits<float>::infinity();
  nodes_.push_back({token, parent, branch});
  return size() - 1;
}

const std::vector<int32_t>& DraftTree::best(int32_t begin, int32_t count) {
  best_.resize(static_cast<size_t>(std::max(size() - begin, 0)));
  std::iota(best_.begin(), best_.end(), begin);
  std::ranges::sort(best_, [&](int32_t a, int32_t b) {
    const float of_a = nodes_[static_cast<size_t>(a)].logprob, of_b = nodes_[static_cast<size_t>(b)].logprob;
    return of_a != of_b ? of_a > of_b : a < b;
  });
  best_.resize(std::min(best_.size(), static_cast<size_t>(std::max(count, 0))));
  return best_;
}

const sample::GuessTree& DraftTree::tree(int32_t count) {
  // Parents are among them: they are as likely at least, and were added before.
  best(0, count);
  tree_.clear();
  places_.assign(nodes_.size(), sample::GuessTree::kNone);
  hang(kRoot);
  return tree_;
}

void DraftTree::hang(int32_t parent) {
  for (const int32_t id : best_) {
    if (nodes_[static_cast<size_t>(id)].parent != parent) continue;
    places_[static_cast<size_t>(id)] = tree_.size();
    tree_.add(token(id), parent == kRoot ? kRoot : places_[static_cast<size_t>(parent)]);
    hang(id);
  }
}

}  // namespace fathom::engine

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

std::vector<int32_t> DraftTree::best(int32_t begin, int32_t count) const {
  std::vector<int32_t> ids(static_cast<size_t>(std::max(size() - begin, 0)));
  std::iota(ids.begin(), ids.end(), begin);
  std::ranges::stable_sort(ids, [&](int32_t a, int32_t b) {
    return nodes_[static_cast<size_t>(a)].logprob > nodes_[static_cast<size_t>(b)].logprob;
  });
  ids.resize(std::min(ids.size(), static_cast<size_t>(std::max(count, 0))));
  return ids;
}

sample::GuessTree DraftTree::tree(int32_t count) const {
  // Parents are among them: they are as likely at least, and were added before.
  const std::vector<int32_t> kept = best(0, count);
  sample::GuessTree tree;
  std::vector<int32_t> place(nodes_.size(), sample::GuessTree::kNone);
  const auto hang = [&](const auto& self, int32_t parent) -> void {
    for (const int32_t id : kept) {
      if (nodes_[static_cast<size_t>(id)].parent != parent) continue;
      place[static_cast<size_t>(id)] = tree.size();
      tree.add(token(id), parent == kRoot ? kRoot : place[static_cast<size_t>(parent)]);
      self(self, id);
    }
  };
  hang(hang, kRoot);
  return tree;
}

}  // namespace fathom::engine

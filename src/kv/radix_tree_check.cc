// RadixTree::check_integrity, which is longer than what it checks.
#include <algorithm>
#include <unordered_map>

#include "kv/radix_node.h"
#include "kv/radix_tree.h"

namespace fathom::kv {
namespace {

template <class... Args>
Error wrong(fmt::format_string<Args...> format, Args&&... args) {
  return error(ErrorCode::kInternal, format, std::forward<Args>(args)...).with_context("radix tree");
}

}  // namespace

Result<void> RadixTree::check_integrity(std::span<const Lock> locks) const {
  std::unordered_map<const Node*, int32_t> lock_counts;
  for (Lock lock : locks) {
    for (const Node* node = lock.node; node != nullptr; node = node->parent) ++lock_counts[node];
  }

  std::vector<uint8_t> seen(static_cast<size_t>(pool_.num_pages()), 0);
  int32_t evictable = 0;
  int32_t pinned = 0;
  size_t leaves = 0;
  size_t roots = 0;
  size_t edges = 0;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const Node* node = nodes_[i].get();
    if (node->index != i) return wrong("node {} believes to be node {}", i, node->index);
    if (node->locks != lock_counts[node]) {
      return wrong("node {} counts {} locks, {} live", i, node->locks, lock_counts[node]);
    }
    if (node->tokens.size() != node->pages.size() * page_size_) {
      return wrong("node {} has {} tokens for {} pages", i, node->tokens.size(), node->pages.size());
    }
    if (node->chains.size() != node->pages.size()) {
      return wrong("node {} has {} hashes for {} pages", i, node->chains.size(), node->pages.size());
    }
    for (size_t page = 0; page < node->pages.size(); ++page) {
      const uint64_t before = page > 0 ? node->chains[page - 1] : chain_of(node->parent);
      const auto tokens = std::span<const int32_t>(node->tokens).subspan(page * page_size_, page_size_);
      if (node->chains[page] != next_chain(before, tokens))
        return wrong("page {} of node {} has a wrong hash", page, i);
    }
    if (node->parent == nullptr) {
      ++roots;
      auto root = roots_.find(node->cache_namespace);
      if (root == roots_.end() || root->second != node) return wrong("node {} is a root nobody knows", i);
      if (!node->pages.empty()) return wrong("root {} has pages", i);
      if (node->children.empty() && node->locks == 0) return wrong("root {} is unused", i);
    } else {
      if (node->pages.empty()) return wrong("node {} is empty", i);
      if (node->parent->locks < node->locks) return wrong("node {} is pinned more than its parent", i);
    }
    for (int32_t page : node->pages) {
      if (page < 0 || page >= pool_.num_pages()) return wrong("node {} has page {}", i, page);
      if (pool_.is_free(page)) return wrong("page {} of node {} is free in the pool", page, i);
      if (seen[static_cast<size_t>(page)]++) return wrong("page {} is there twice", page);
    }
    for (const auto& [hash, child] : node->children) {
      ++edges;
      if (child->parent != node) return wrong("a child of node {} has another parent", i);
      if (hash != hash_page(child->tokens)) return wrong("a child of node {} is under a wrong hash", i);
      if (find_child(node, child->tokens) != child) return wrong("two children of node {} are alike", i);
    }
    (node->locks > 0 ? pinned : evictable) += static_cast<int32_t>(node->pages.size());
    if (node->in_order != is_evictable(node)) return wrong("node {} is wrongly in or out of the order", i);
    if (node->in_order && !evictable_.contains({node->last_use, nodes_[i].get()})) {
      return wrong("node {} is not in the eviction order", i);
    }
    leaves += node->in_order ? 1 : 0;
  }
  if (roots != roots_.size()) return wrong("{} roots, {} named", roots, roots_.size());
  if (edges + roots != nodes_.size()) return wrong("{} edges for {} nodes", edges, nodes_.size());
  if (leaves != evictable_.size()) return wrong("{} leaves, {} in the order", leaves, evictable_.size());
  if (evictable != evictable_pages_ || pinned != protected_pages_) {
    return wrong("counted {} evictable and {} protected pages, found {} and {}", evictable_pages_,
                 protected_pages_, evictable, pinned);
  }
  return {};
}

}  // namespace fathom::kv

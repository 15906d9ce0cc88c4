// The prefix cache: a radix tree over token ids whose edges are whole pages, so that requests with a common
// prefix share its pages.
//
// The tree owns the pages inside it (they count as given out in the PagePool) until they are evicted. Each
// cache namespace has a root of its own; nothing is shared between namespaces. A lock pins the path from the
// root to one node; only pages that no lock covers are evicted, least recently used first, from the ends of
// the branches inwards.
//
// Costs: match and lock are linear in the tokens compared; insert is linear in the tokens added; evict is
// O(log nodes) a node.
// Not thread safe. Invariants are listed at check_integrity().
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/result.h"
#include "core/cache_miss.h"
#include "kv/evicted_pages.h"
#include "kv/page_pool.h"

namespace fathom::kv {

class RadixTree {
 public:
  struct Node;
  // A pinned path; made by lock_prefix, ended by unlock. Copies are the same lock.
  struct Lock {
    Node* node = nullptr;
  };

  RadixTree(PagePool& pool, int32_t page_size);
  ~RadixTree();
  RadixTree(const RadixTree&) = delete;
  RadixTree& operator=(const RadixTree&) = delete;

  // Pages of the longest cached prefix of `tokens`, rounded down to whole pages. Changes nothing.
  int32_t match(const std::string& cache_namespace, std::span<const int32_t> tokens) const;

  // As match, but pins the prefix, marks it as used now and appends its pages to `pages`.
  Lock lock_prefix(const std::string& cache_namespace, std::span<const int32_t> tokens,
                   std::vector<int32_t>* pages);

  // Adds pages below the lock's node and moves the lock to the end of them. `tokens` follow the locked
  // prefix, page_size for each of `pages`. Where the tree already has a page for the same tokens it keeps its
  // own, and the given page is appended to `duplicates`: it stays the caller's. All others become the tree's.
  void insert(Lock* lock, std::span<const int32_t> tokens, std::span<const int32_t> pages,
              std::vector<int32_t>* duplicates);

  // Does the tree have a page for `page_tokens`, one page, right below the lock?
  bool has_next(Lock lock, std::span<const int32_t> page_tokens) const;

  // Why the tree has no page below the lock for the tokens of `prompt` after the locked `prefix_tokens`.
  // Looks into other namespaces only if it may, and at most at kMaxLookedAt of them.
  CacheMiss explain(Lock lock, int32_t prefix_tokens, std::span<const int32_t> prompt,
                    bool other_namespaces) const;

  // Ends a lock; the path counts as used now.
  void unlock(Lock lock);

  // Gives at least `pages` unlocked pages back to the pool, or all there are. Returns how many.
  int32_t evict(int32_t pages);

  int32_t evictable_pages() const { return evictable_pages_; }
  int32_t protected_pages() const { return protected_pages_; }
  size_t num_nodes() const { return nodes_.size(); }
  // Changes whenever a match may give another answer than before.
  uint64_t version() const { return version_; }

  // Walks everything. Every node but a root has page_size tokens for each page and at least one page, is
  // reachable from its parent by the hash of its first page, and pins its parent at least as often as itself;
  // siblings differ in their first page; no page is there twice or is free in the pool; the counters, the
  // eviction order and the lock counts (against `locks`, all locks that live) are right.
  Result<void> check_integrity(std::span<const Lock> locks) const;

  static constexpr size_t kMaxLookedAt = 256;  // siblings and namespaces, by explain()

  // The pages in the tree, for checks of ownership.
  std::vector<int32_t> pages() const;

 private:
  Node* new_node(Node* parent);
  void delete_node(Node* node);
  Node* find_child(const Node* node, std::span<const int32_t> page_tokens) const;
  void attach(Node* parent, Node* child);
  void detach(Node* child);
  Node* split(Node* node, size_t pages);
  void add_lock(Node* node);
  void touch(Node* node, uint64_t tick);
  bool is_evictable(const Node* node) const;
  void update_evictable(Node* node);
  void drop_root_if_unused(Node* root);
  uint64_t hash_page(std::span<const int32_t> tokens) const;
  size_t common_pages(const Node* node, std::span<const int32_t> tokens) const;
  static uint64_t random_secret();
  uint64_t chain_of(const Node* node) const;  // of its last page; of a root, of its namespace
  uint64_t next_chain(uint64_t chain, std::span<const int32_t> page_tokens) const;
  bool cached_elsewhere(const Node* root, std::span<const int32_t> prompt, size_t pages) const;

  PagePool& pool_;
  size_t page_size_;
  std::vector<std::unique_ptr<Node>> nodes_;  // all, roots included; Node::index is the place here
  std::unordered_map<std::string, Node*> roots_;
  std::set<std::pair<uint64_t, Node*>> evictable_;  // unlocked leaves by last use
  EvictedPages evicted_;
  // In the hashes of `evicted_`: nobody can make prompts of two namespaces meet there.
  const uint64_t secret_ = random_secret();
  uint64_t tick_ = 0;
  uint64_t version_ = 0;
  int32_t evictable_pages_ = 0;
  int32_t protected_pages_ = 0;
};

}  // namespace fathom::kv

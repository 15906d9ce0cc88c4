#include "kv/radix_tree.h"

#include <algorithm>
#include <random>

#include "base/random.h"
#include "kv/radix_node.h"

namespace fathom::kv {

RadixTree::RadixTree(PagePool& pool, int32_t page_size)
    : pool_(pool), page_size_(static_cast<size_t>(page_size)) {
  FATHOM_CHECK(page_size > 0, "page_size={}", page_size);
}

RadixTree::~RadixTree() = default;

uint64_t RadixTree::hash_page(std::span<const int32_t> tokens) const {
  uint64_t hash = 0x2545f4914f6cdd1dULL;
  for (size_t i = 0; i < page_size_; ++i) {
    hash = (hash ^ static_cast<uint32_t>(tokens[i])) * 0x9e3779b97f4a7c15ULL;
    hash ^= hash >> 29;
  }
  return mix64(hash);
}

RadixTree::Node* RadixTree::find_child(const Node* node, std::span<const int32_t> page_tokens) const {
  if (node->children.empty()) return nullptr;
  auto [begin, end] = node->children.equal_range(hash_page(page_tokens));
  for (auto it = begin; it != end; ++it) {
    if (std::equal(page_tokens.begin(), page_tokens.begin() + static_cast<std::ptrdiff_t>(page_size_),
                   it->second->tokens.begin())) {
      return it->second;
    }
  }
  return nullptr;
}

size_t RadixTree::common_pages(const Node* node, std::span<const int32_t> tokens) const {
  size_t limit = std::min(node->tokens.size(), tokens.size());
  auto difference = std::mismatch(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(limit),
                                  node->tokens.begin());
  return static_cast<size_t>(difference.first - tokens.begin()) / page_size_;
}

RadixTree::Node* RadixTree::new_node(Node* parent) {
  nodes_.push_back(std::make_unique<Node>());
  Node* node = nodes_.back().get();
  node->index = nodes_.size() - 1;
  node->parent = parent;
  return node;
}

void RadixTree::delete_node(Node* node) {
  size_t index = node->index;
  std::swap(nodes_[index], nodes_.back());
  nodes_[index]->index = index;
  nodes_.pop_back();
}

void RadixTree::attach(Node* parent, Node* child) {
  child->parent = parent;
  parent->children.emplace(hash_page(child->tokens), child);
  update_evictable(parent);
  update_evictable(child);
}

void RadixTree::detach(Node* child) {
  auto& siblings = child->parent->children;
  auto [begin, end] = siblings.equal_range(hash_page(child->tokens));
  auto it = std::find_if(begin, end, [&](const auto& entry) { return entry.second == child; });
  FATHOM_CHECK(it != end, "a node is unknown to its parent");
  siblings.erase(it);
}

// Cuts a node after `pages` pages and returns the new upper part. The lower part keeps the object, so that
// locks on the node still cover all of it.
RadixTree::Node* RadixTree::split(Node* node, size_t pages) {
  FATHOM_CHECK(pages > 0 && pages < node->pages.size(), "split at {} of {}", pages, node->pages.size());
  Node* parent = node->parent;
  detach(node);
  Node* upper = new_node(parent);
  auto page_cut = static_cast<std::ptrdiff_t>(pages);
  auto token_cut = static_cast<std::ptrdiff_t>(pages * page_size_);
  upper->pages.assign(node->pages.begin(), node->pages.begin() + page_cut);
  upper->tokens.assign(node->tokens.begin(), node->tokens.begin() + token_cut);
  upper->chains.assign(node->chains.begin(), node->chains.begin() + page_cut);
  node->chains.erase(node->chains.begin(), node->chains.begin() + page_cut);
  node->pages.erase(node->pages.begin(), node->pages.begin() + page_cut);
  node->tokens.erase(node->tokens.begin(), node->tokens.begin() + token_cut);
  upper->locks = node->locks;
  upper->last_use = node->last_use;
  attach(upper, node);
  attach(parent, upper);
  return upper;
}

bool RadixTree::is_evictable(const Node* node) const {
  return node->parent != nullptr && node->locks == 0 && node->children.empty();
}

void RadixTree::update_evictable(Node* node) {
  bool wanted = is_evictable(node);
  if (wanted == node->in_order) return;
  if (wanted) {
    evictable_.emplace(node->last_use, node);
  } else {
    evictable_.erase({node->last_use, node});
  }
  node->in_order = wanted;
}

void RadixTree::touch(Node* node, uint64_t tick) {
  if (node->in_order) {
    evictable_.erase({node->last_use, node});
    evictable_.emplace(tick, node);
  }
  node->last_use = tick;
}

void RadixTree::add_lock(Node* node) {
  if (node->locks++ == 0) {
    auto pages = static_cast<int32_t>(node->pages.size());
    evictable_pages_ -= pages;
    protected_pages_ += pages;
    update_evictable(node);
  }
}

int32_t RadixTree::match(const std::string& cache_namespace, std::span<const int32_t> tokens) const {
  auto root = roots_.find(cache_namespace);
  if (root == roots_.end()) return 0;
  const Node* node = root->second;
  size_t matched = 0;
  while (tokens.size() >= page_size_) {
    node = find_child(node, tokens);
    if (node == nullptr) break;
    size_t common = common_pages(node, tokens);
    matched += common;
    if (common < node->pages.size()) break;
    tokens = tokens.subspan(common * page_size_);
  }
  return static_cast<int32_t>(matched);
}

RadixTree::Lock RadixTree::lock_prefix(const std::string& cache_namespace, std::span<const int32_t> tokens,
                                       std::vector<int32_t>* pages) {
  Node*& root = roots_[cache_namespace];
  if (root == nullptr) {
    root = new_node(nullptr);
    root->cache_namespace = cache_namespace;
  }
  Node* node = root;
  uint64_t tick = ++tick_;
  add_lock(node);
  while (tokens.size() >= page_size_) {
    Node* child = find_child(node, tokens);
    if (child == nullptr) break;
    size_t common = common_pages(child, tokens);
    if (common < child->pages.size()) child = split(child, common);
    add_lock(child);
    touch(child, tick);
    pages->insert(pages->end(), child->pages.begin(), child->pages.end());
    tokens = tokens.subspan(common * page_size_);
    node = child;
  }
  return Lock{node};
}

void RadixTree::insert(Lock* lock, std::span<const int32_t> tokens, std::span<const int32_t> pages,
                       std::vector<int32_t>* duplicates) {
  FATHOM_CHECK_EQ(tokens.size(), pages.size() * page_size_);
  Node* node = lock->node;
  while (!pages.empty()) {
    Node* child = find_child(node, tokens);
    if (child == nullptr) break;
    size_t common = common_pages(child, tokens);
    if (common < child->pages.size()) child = split(child, common);
    add_lock(child);
    duplicates->insert(duplicates->end(), pages.begin(), pages.begin() + static_cast<std::ptrdiff_t>(common));
    tokens = tokens.subspan(common * page_size_);
    pages = pages.subspan(common);
    node = child;
  }
  if (!pages.empty()) {
    Node* child = new_node(node);
    child->tokens.assign(tokens.begin(), tokens.end());
    child->pages.assign(pages.begin(), pages.end());
    child->chains.reserve(pages.size());
    uint64_t chain = chain_of(node);
    for (size_t page = 0; page < pages.size(); ++page) {
      chain = next_chain(chain, tokens.subspan(page * page_size_, page_size_));
      child->chains.push_back(chain);
    }
    child->locks = 1;
    child->last_use = tick_;
    protected_pages_ += static_cast<int32_t>(pages.size());
    attach(node, child);
    node = child;
    ++version_;
  }
  lock->node = node;
}

bool RadixTree::has_next(Lock lock, std::span<const int32_t> page_tokens) const {
  return find_child(lock.node, page_tokens) != nullptr;
}

uint64_t RadixTree::random_secret() {
  std::random_device device;
  return uint64_t{device()} << 32 | device();
}

uint64_t RadixTree::chain_of(const Node* node) const {
  if (!node->chains.empty()) return node->chains.back();
  return mix64(std::hash<std::string>()(node->cache_namespace) ^ secret_);
}

uint64_t RadixTree::next_chain(uint64_t chain, std::span<const int32_t> page_tokens) const {
  return mix64(chain * 0x9e3779b97f4a7c15ULL + hash_page(page_tokens));
}

bool RadixTree::cached_elsewhere(const Node* root, std::span<const int32_t> prompt, size_t pages) const {
  size_t looked_at = 0;
  for (const auto& [name, other] : roots_) {
    if (++looked_at > kMaxLookedAt) return false;
    if (other == root) continue;
    if (match(name, prompt) > static_cast<int32_t>(pages)) return true;
  }
  return false;
}

CacheMiss RadixTree::explain(Lock lock, int32_t prefix_tokens, std::span<const int32_t> prompt,
                             bool other_namespaces) const {
  constexpr size_t kExpected = 16;  // tokens told of
  CacheMiss miss;
  miss.at_token = prefix_tokens;
  const auto rest = prompt.subspan(static_cast<size_t>(prefix_tokens));
  if (rest.size() < page_size_) return miss;
  const Node* node = lock.node;
  if (evicted_.contains(next_chain(chain_of(node), rest))) {
    miss.reason = MissReason::kEvicted;
    return miss;
  }
  const Node* root = node;
  while (root->parent != nullptr) root = root->parent;
  if (other_namespaces && cached_elsewhere(root, prompt, static_cast<size_t>(prefix_tokens) / page_size_)) {
    miss.reason = MissReason::kOtherSalt;
    return miss;
  }
  miss.reason = MissReason::kNeverSeen;
  const Node* nearest = nullptr;
  size_t common = 0;
  size_t looked_at = 0;
  for (const auto& [hash, child] : node->children) {
    if (++looked_at > kMaxLookedAt) break;
    const auto differ = std::mismatch(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(page_size_),
                                      child->tokens.begin());
    const auto length = static_cast<size_t>(differ.first - rest.begin());
    if (nearest != nullptr && length <= common) continue;
    nearest = child;
    common = length;
  }
  // At a root everything begins; there a likeness must have begun.
  if (nearest == nullptr || (common == 0 && node->parent == nullptr)) return miss;
  miss.reason = MissReason::kFirstDifference;
  miss.at_token += static_cast<int32_t>(common);
  const auto& tokens = nearest->tokens;
  miss.expected.assign(
      tokens.begin() + static_cast<std::ptrdiff_t>(common),
      tokens.begin() + static_cast<std::ptrdiff_t>(std::min(tokens.size(), common + kExpected)));
  return miss;
}

void RadixTree::unlock(Lock lock) {
  FATHOM_CHECK(lock.node != nullptr, "unlock without a lock");
  uint64_t tick = ++tick_;
  Node* root = nullptr;
  for (Node* node = lock.node; node != nullptr; node = node->parent) {
    FATHOM_CHECK(node->locks > 0, "a node is unlocked more often than locked");
    touch(node, tick);
    if (--node->locks == 0) {
      auto pages = static_cast<int32_t>(node->pages.size());
      protected_pages_ -= pages;
      evictable_pages_ += pages;
      update_evictable(node);
    }
    root = node;
  }
  drop_root_if_unused(root);
}

int32_t RadixTree::evict(int32_t pages) {
  int32_t evicted = 0;
  while (evicted < pages && !evictable_.empty()) {
    Node* node = evictable_.begin()->second;
    // A leaf is cut from its end, and only as far as needed: what remains is still a usable prefix.
    auto count = std::min<size_t>(static_cast<size_t>(pages - evicted), node->pages.size());
    size_t kept = node->pages.size() - count;
    pool_.release(std::span<const int32_t>(node->pages).subspan(kept));
    for (size_t page = kept; page < node->chains.size(); ++page) evicted_.add(node->chains[page]);
    node->chains.resize(kept);
    evicted += static_cast<int32_t>(count);
    evictable_pages_ -= static_cast<int32_t>(count);
    ++version_;
    if (kept > 0) {
      node->pages.resize(kept);
      node->tokens.resize(kept * page_size_);
      continue;
    }
    Node* parent = node->parent;
    evictable_.erase(evictable_.begin());
    detach(node);
    delete_node(node);
    update_evictable(parent);
    drop_root_if_unused(parent);
  }
  return evicted;
}

void RadixTree::drop_root_if_unused(Node* root) {
  if (root->parent != nullptr || root->locks > 0 || !root->children.empty()) return;
  roots_.erase(root->cache_namespace);
  delete_node(root);
}

std::vector<int32_t> RadixTree::pages() const {
  std::vector<int32_t> all;
  for (const auto& node : nodes_) all.insert(all.end(), node->pages.begin(), node->pages.end());
  return all;
}

}  // namespace fathom::kv

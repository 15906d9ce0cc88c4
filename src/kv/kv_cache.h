// Who owns which page: the front door of this room. The scheduler gives each live sequence a BlockTable and
// asks here for pages; computed pages go to the prefix cache, from where others take them.
//
// A page is free, or the prefix cache's, or private to one block table. Integers only, not thread safe.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "kv/page_pool.h"
#include "kv/radix_tree.h"

namespace fathom::kv {

// The pages of one sequence, page i for the positions from i * page_size on. Made by KvCache::open, ended by
// KvCache::close; read `pages`, leave the rest.
struct BlockTable {
  std::vector<int32_t> pages;

  RadixTree::Lock lock;
  int32_t committed = 0;  // the first `committed` pages are the prefix cache's, pinned
  // The cache has the next page from another sequence already: the rest stays private until close.
  bool apart = false;
};

struct KvCacheOptions {
  int32_t num_pages = 0;
  int32_t page_size = 1;    // tokens
  bool radix_cache = true;  // off: nothing is kept or shared
};

class KvCache {
 public:
  explicit KvCache(const KvCacheOptions& options);

  int32_t page_size() const { return page_size_; }
  int32_t num_pages() const { return pool_.num_pages(); }
  int32_t free_pages() const { return pool_.free_pages(); }
  int32_t evictable_pages() const { return tree_.evictable_pages(); }
  // Pages that grow can still hand out.
  int32_t available_pages() const { return free_pages() + evictable_pages(); }
  // Pages taken from the prefix cache to make room, since the start.
  int64_t evicted_pages() const { return evicted_pages_; }
  // Pages that are neither free nor in the prefix cache: as many as the live tables have private ones.
  int32_t private_pages() const {
    return num_pages() - free_pages() - evictable_pages() - tree_.protected_pages();
  }
  // Pages that some block table uses.
  int32_t used_pages() const { return num_pages() - available_pages(); }
  // Changes whenever cached_tokens may give another answer.
  uint64_t version() const { return tree_.version(); }
  bool radix_cache() const { return radix_cache_; }

  // How many of `tokens` open would find: a multiple of page_size. Changes nothing.
  int32_t cached_tokens(const std::string& cache_namespace, std::span<const int32_t> tokens) const;

  // A table that holds the cached prefix of `tokens`, pinned.
  BlockTable open(const std::string& cache_namespace, std::span<const int32_t> tokens);

  // Why open found no more of `tokens` than the table holds. To be asked at once after it.
  CacheMiss explain(const BlockTable& table, std::span<const int32_t> tokens, bool other_namespaces) const;

  // Pages that grow would have to allocate.
  int32_t pages_to_grow(const BlockTable& table, int32_t tokens) const;
  // Makes room for `tokens` positions, evicting where needed, and appends the pages added to `added` too.
  // False, with nothing changed, when available_pages() is too small.
  bool grow(BlockTable* table, int32_t tokens, std::vector<int32_t>* added);

  // The KV of `tokens`, the sequence's from position 0 on, is computed: their whole pages go to the prefix
  // cache, for others to share, and the table goes on using them. But where the cache already has such a page
  // from another sequence, the table keeps its own from there on: an executor cannot swap the pages of a live
  // slot, and to pin both would take twice the memory.
  void commit(BlockTable* table, std::span<const int32_t> tokens);
  // Will commit still add pages of this table?
  bool commits(const BlockTable& table) const { return radix_cache_ && !table.apart; }

  // Gives up the table. Whole pages of the computed `tokens` stay cached; duplicates of cached ones and the
  // rest are free at once.
  void close(BlockTable table, std::span<const int32_t> tokens);

  // Forgets every cached prefix that no table uses; returns the pages freed.
  int32_t flush();

  // Walks everything against `tables`, all tables that live: each page is free, cached, or private to one
  // table; nothing is lost; locks and counters are right.
  Result<void> check_integrity(std::span<const BlockTable* const> tables) const;

 private:
  void insert(BlockTable* table, std::span<const int32_t> tokens, std::vector<int32_t>* duplicates);

  bool radix_cache_;
  int32_t page_size_;
  PagePool pool_;
  RadixTree tree_;
  int64_t evicted_pages_ = 0;
};

}  // namespace fathom::kv

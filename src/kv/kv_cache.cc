#include "kv/kv_cache.h"

#include <algorithm>

#include "base/math.h"

namespace fathom::kv {

KvCache::KvCache(const KvCacheOptions& options)
    : radix_cache_(options.radix_cache),
      page_size_(options.page_size),
      pool_(options.num_pages),
      tree_(pool_, options.page_size) {}

int32_t KvCache::cached_tokens(const std::string& cache_namespace, std::span<const int32_t> tokens) const {
  return tree_.match(cache_namespace, tokens) * page_size_;
}

BlockTable KvCache::open(const std::string& cache_namespace, std::span<const int32_t> tokens) {
  BlockTable table;
  if (radix_cache_) {
    table.lock = tree_.lock_prefix(cache_namespace, tokens, &table.pages);
    table.committed = static_cast<int32_t>(table.pages.size());
  }
  return table;
}

CacheMiss KvCache::explain(const BlockTable& table, std::span<const int32_t> tokens,
                           bool other_namespaces) const {
  if (!radix_cache_) return {MissReason::kCacheOff, 0, {}};
  return tree_.explain(table.lock, table.committed * page_size_, tokens, other_namespaces);
}

int32_t KvCache::pages_to_grow(const BlockTable& table, int32_t tokens) const {
  return std::max(0, ceil_div(tokens, page_size_) - static_cast<int32_t>(table.pages.size()));
}

bool KvCache::grow(BlockTable* table, int32_t tokens, std::vector<int32_t>* added) {
  int32_t count = pages_to_grow(*table, tokens);
  if (count == 0) return true;
  if (count > available_pages()) return false;
  if (count > free_pages()) evicted_pages_ += tree_.evict(count - free_pages());
  auto before = static_cast<std::ptrdiff_t>(table->pages.size());
  FATHOM_CHECK(pool_.allocate(count, &table->pages), "{} pages, {} free", count, free_pages());
  added->insert(added->end(), table->pages.begin() + before, table->pages.end());
  return true;
}

// Moves the whole pages of `tokens` beyond the committed ones to the tree.
void KvCache::insert(BlockTable* table, std::span<const int32_t> tokens, std::vector<int32_t>* duplicates) {
  int32_t whole = static_cast<int32_t>(tokens.size()) / page_size_;
  if (!radix_cache_ || whole <= table->committed) return;
  FATHOM_CHECK(whole <= static_cast<int32_t>(table->pages.size()), "{} pages computed, {} held", whole,
               table->pages.size());
  auto first = static_cast<size_t>(table->committed);
  auto count = static_cast<size_t>(whole) - first;
  auto page_size = static_cast<size_t>(page_size_);
  tree_.insert(&table->lock, tokens.subspan(first * page_size, count * page_size),
               std::span<const int32_t>(table->pages).subspan(first, count), duplicates);
  table->committed = whole;
}

void KvCache::commit(BlockTable* table, std::span<const int32_t> tokens) {
  auto page_size = static_cast<size_t>(page_size_);
  size_t first = static_cast<size_t>(table->committed) * page_size;
  if (!radix_cache_ || table->apart || tokens.size() < first + page_size) return;
  table->apart = tree_.has_next(table->lock, tokens.subspan(first, page_size));
  if (table->apart) return;
  std::vector<int32_t> duplicates;
  insert(table, tokens, &duplicates);
  FATHOM_CHECK(duplicates.empty(), "{} duplicates below a new page", duplicates.size());
}

void KvCache::close(BlockTable table, std::span<const int32_t> tokens) {
  std::vector<int32_t> duplicates;
  insert(&table, tokens, &duplicates);
  pool_.release(duplicates);
  pool_.release(std::span<const int32_t>(table.pages).subspan(static_cast<size_t>(table.committed)));
  if (radix_cache_) tree_.unlock(table.lock);
}

int32_t KvCache::flush() {
  return tree_.evict(tree_.evictable_pages());
}

Result<void> KvCache::check_integrity(std::span<const BlockTable* const> tables) const {
  FATHOM_TRY(pool_.check_integrity());
  std::vector<RadixTree::Lock> locks;
  for (const BlockTable* table : tables) {
    if (radix_cache_) locks.push_back(table->lock);
  }
  FATHOM_TRY(tree_.check_integrity(locks));

  // 0: nobody's so far, 1: free, 2: cached, 3: private
  std::vector<uint8_t> owner(static_cast<size_t>(num_pages()), 0);
  for (int32_t page = 0; page < num_pages(); ++page) {
    if (pool_.is_free(page)) owner[static_cast<size_t>(page)] = 1;
  }
  for (int32_t page : tree_.pages()) owner[static_cast<size_t>(page)] = 2;
  auto take = [&](int32_t page) -> Result<void> {
    if (page < 0 || page >= num_pages()) return error(ErrorCode::kInternal, "a table holds page {}", page);
    uint8_t& mark = owner[static_cast<size_t>(page)];
    if (mark != 0) {
      return error(ErrorCode::kInternal, "private page {} is also {}", page,
                   mark == 1   ? "free"
                   : mark == 2 ? "cached"
                               : "another table's");
    }
    mark = 3;
    return {};
  };
  for (const BlockTable* table : tables) {
    for (size_t i = static_cast<size_t>(table->committed); i < table->pages.size(); ++i) {
      FATHOM_TRY(take(table->pages[i]));
    }
    for (size_t i = 0; i < static_cast<size_t>(table->committed); ++i) {
      int32_t page = table->pages[i];
      if (owner[static_cast<size_t>(page)] != 2) {
        return error(ErrorCode::kInternal, "shared page {} of a table is not in the prefix cache", page);
      }
    }
  }
  for (int32_t page = 0; page < num_pages(); ++page) {
    if (owner[static_cast<size_t>(page)] == 0) return error(ErrorCode::kInternal, "page {} is lost", page);
  }
  return {};
}

}  // namespace fathom::kv

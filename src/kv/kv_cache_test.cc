// Examples first, then random actions against a naive model that keeps one entry for each cached page.
#include "kv/kv_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

namespace fathom::kv {
namespace {

std::vector<int32_t> iota(int32_t first, int32_t count) {
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < count; ++i) tokens.push_back(first + i);
  return tokens;
}

// Computes `tokens` as a request would and leaves them in the cache; returns the pages used.
std::vector<int32_t> run_request(KvCache& cache, const std::string& ns, const std::vector<int32_t>& tokens) {
  BlockTable table = cache.open(ns, tokens);
  std::vector<int32_t> added;
  EXPECT_TRUE(cache.grow(&table, static_cast<int32_t>(tokens.size()), &added));
  std::vector<int32_t> pages = table.pages;
  cache.close(std::move(table), tokens);
  return pages;
}

TEST(KvCacheTest, MatchIsRoundedDownToWholePages) {
  KvCache cache({.num_pages = 8, .page_size = 4});
  run_request(cache, "", iota(0, 10));
  EXPECT_EQ(cache.free_pages(), 6);  // the partial third page is free again
  EXPECT_EQ(cache.cached_tokens("", iota(0, 10)), 8);
  EXPECT_EQ(cache.cached_tokens("", iota(0, 7)), 4);
  EXPECT_EQ(cache.cached_tokens("", iota(0, 3)), 0);
  EXPECT_EQ(cache.cached_tokens("", iota(1, 8)), 0);
}

CacheMiss miss_of(KvCache& cache, const std::string& ns, const std::vector<int32_t>& tokens,
                  bool others = false) {
  BlockTable table = cache.open(ns, tokens);
  CacheMiss miss = cache.explain(table, tokens, others);
  cache.close(std::move(table), {});
  return miss;
}

TEST(KvCacheTest, ExplainsWhatItDoesNotHave) {
  KvCache cache({.num_pages = 8, .page_size = 4});
  EXPECT_EQ(miss_of(cache, "", iota(0, 9)).reason, MissReason::kNeverSeen);
  run_request(cache, "", iota(0, 16));
  EXPECT_EQ(miss_of(cache, "", iota(0, 15)).reason, MissReason::kPageTail);
  EXPECT_EQ(miss_of(cache, "", iota(0, 15)).at_token, 12);
  // A longer prompt than was ever cached.
  EXPECT_EQ(miss_of(cache, "", iota(0, 30)).reason, MissReason::kNeverSeen);
  EXPECT_EQ(miss_of(cache, "", iota(0, 30)).at_token, 16);
  // The same beginning, another token in the second page.
  auto other = iota(0, 16);
  other[6] = 99;
  const CacheMiss differs = miss_of(cache, "", other);
  EXPECT_EQ(differs.reason, MissReason::kFirstDifference);
  EXPECT_EQ(differs.at_token, 6);
  EXPECT_EQ(differs.expected, iota(6, 6)) << "to the end of what was matched together";
  // Another beginning.
  EXPECT_EQ(miss_of(cache, "", iota(50, 16)).reason, MissReason::kNeverSeen);
}

TEST(KvCacheTest, ExplainsByEvictionAndBySalt) {
  KvCache cache({.num_pages = 8, .page_size = 4});
  run_request(cache, "a", iota(0, 16));
  EXPECT_EQ(miss_of(cache, "b", iota(0, 16)).reason, MissReason::kNeverSeen) << "others are others' business";
  EXPECT_EQ(miss_of(cache, "b", iota(0, 16), true).reason, MissReason::kOtherSalt);
  run_request(cache, "a", iota(100, 24));  // takes the last pages of the first one
  const CacheMiss gone = miss_of(cache, "a", iota(0, 16));
  EXPECT_EQ(gone.reason, MissReason::kEvicted);
  EXPECT_EQ(gone.at_token, 8);
  EXPECT_EQ(miss_of(cache, "b", iota(0, 16)).reason, MissReason::kNeverSeen);
  run_request(cache, "a", iota(0, 16));
  EXPECT_EQ(miss_of(cache, "a", iota(0, 16)).reason, MissReason::kPageTail);
  KvCache off({.num_pages = 8, .page_size = 4, .radix_cache = false});
  EXPECT_EQ(miss_of(off, "a", iota(0, 16)).reason, MissReason::kCacheOff);
}

TEST(EvictedPagesTest, ForgetsTheOldest) {
  EvictedPages pages;
  for (uint64_t i = 0; i < EvictedPages::kCapacity + 10; ++i) pages.add(i);
  pages.add(EvictedPages::kCapacity);  // twice there
  EXPECT_EQ(pages.size(), EvictedPages::kCapacity);
  EXPECT_FALSE(pages.contains(10));
  EXPECT_TRUE(pages.contains(11));
  EXPECT_TRUE(pages.contains(EvictedPages::kCapacity));
}

TEST(KvCacheTest, NamespacesDoNotShare) {
  KvCache cache({.num_pages = 8, .page_size = 2});
  run_request(cache, "a", iota(0, 4));
  EXPECT_EQ(cache.cached_tokens("a", iota(0, 4)), 4);
  EXPECT_EQ(cache.cached_tokens("b", iota(0, 4)), 0);
  EXPECT_EQ(cache.cached_tokens("", iota(0, 4)), 0);
}

TEST(KvCacheTest, DuplicatesAreFreedAtOnce) {
  KvCache cache({.num_pages = 8, .page_size = 2});
  auto tokens = iota(0, 6);
  std::vector<int32_t> added;
  BlockTable first = cache.open("", tokens);
  BlockTable second = cache.open("", tokens);
  ASSERT_TRUE(cache.grow(&first, 6, &added));
  ASSERT_TRUE(cache.grow(&second, 6, &added));
  EXPECT_EQ(cache.free_pages(), 2);
  std::vector<int32_t> kept = first.pages;
  cache.close(std::move(first), tokens);
  cache.close(std::move(second), tokens);
  EXPECT_EQ(cache.free_pages(), 5);
  BlockTable third = cache.open("", tokens);
  EXPECT_EQ(third.pages, kept);
  cache.close(std::move(third), tokens);
}

TEST(KvCacheTest, ATableThatMeetsAnothersPagesPinsNothingTwice) {
  KvCache cache({.num_pages = 6, .page_size = 1});
  std::vector<int32_t> tokens{1, 2, 3};
  std::vector<int32_t> added;
  BlockTable table = cache.open("", {});
  ASSERT_TRUE(cache.grow(&table, 3, &added));
  run_request(cache, "", tokens);
  cache.commit(&table, tokens);
  EXPECT_EQ(table.pages, added);
  EXPECT_FALSE(cache.commits(table));
  EXPECT_EQ(cache.available_pages(), 3);
  ASSERT_TRUE(cache.grow(&table, 6, &added));
  std::vector<const BlockTable*> tables{&table};
  EXPECT_TRUE(cache.check_integrity(tables).ok());
  cache.close(std::move(table), tokens);
}

TEST(KvCacheTest, EvictionTakesTheLeastRecentlyUsedAndSparesLockedPaths) {
  KvCache cache({.num_pages = 6, .page_size = 1});
  run_request(cache, "", {1, 2});
  run_request(cache, "", {3, 4});
  run_request(cache, "", {1, 2});  // used again: {3, 4} is older now
  BlockTable table = cache.open("", std::vector<int32_t>{1});
  EXPECT_EQ(cache.available_pages(), 5);
  std::vector<int32_t> added;
  ASSERT_TRUE(cache.grow(&table, 4, &added));  // 2 free pages and the end of the oldest branch
  EXPECT_EQ(cache.cached_tokens("", std::vector<int32_t>{3, 4}), 1);
  EXPECT_EQ(cache.cached_tokens("", std::vector<int32_t>{1, 2}), 2);
  EXPECT_FALSE(cache.grow(&table, 7, &added));
  ASSERT_TRUE(cache.grow(&table, 6, &added));
  EXPECT_EQ(cache.cached_tokens("", std::vector<int32_t>{1, 2}), 1);
  cache.close(std::move(table), std::vector<int32_t>{1});
  EXPECT_EQ(cache.available_pages(), 6);
}

TEST(KvCacheTest, WithoutRadixCacheNothingIsKept) {
  KvCache cache({.num_pages = 4, .page_size = 1, .radix_cache = false});
  run_request(cache, "", {1, 2, 3});
  EXPECT_EQ(cache.free_pages(), 4);
  EXPECT_EQ(cache.cached_tokens("", std::vector<int32_t>{1, 2, 3}), 0);
}

TEST(KvCacheTest, ManyNamespacesLeaveNothingBehind) {
  KvCache cache({.num_pages = 4, .page_size = 1});
  for (int32_t i = 0; i < 1000; ++i) run_request(cache, std::to_string(i), {i, i});
  cache.flush();
  EXPECT_EQ(cache.free_pages(), 4);
  EXPECT_TRUE(cache.check_integrity({}).ok());
}

// A page of the cache is known by its namespace and all tokens up to its end.
class NaiveCache {
 public:
  using Key = std::pair<std::string, std::vector<int32_t>>;
  struct Page {
    int32_t id = 0;
    int32_t locks = 0;
    uint64_t last_use = 0;
  };

  explicit NaiveCache(int32_t page_size) : page_size_(page_size) {}

  std::vector<int32_t> match(const std::string& ns, const std::vector<int32_t>& tokens) const {
    std::vector<int32_t> ids;
    for (int32_t end = page_size_; end <= static_cast<int32_t>(tokens.size()); end += page_size_) {
      auto it = pages_.find(key(ns, tokens, end));
      if (it == pages_.end()) break;
      ids.push_back(it->second.id);
    }
    return ids;
  }
  void lock(const std::string& ns, const std::vector<int32_t>& tokens, int32_t count, int32_t by) {
    for (int32_t i = 1; i <= count; ++i) pages_.at(key(ns, tokens, i * page_size_)).locks += by;
  }
  void touch(const std::string& ns, const std::vector<int32_t>& tokens, int32_t count) {
    ++tick_;
    for (int32_t i = 1; i <= count; ++i) pages_.at(key(ns, tokens, i * page_size_)).last_use = tick_;
  }
  bool has(const std::string& ns, const std::vector<int32_t>& tokens, int32_t index) const {
    return pages_.contains(key(ns, tokens, (index + 1) * page_size_));
  }
  // Adds page `index` unless it is there.
  void add(const std::string& ns, const std::vector<int32_t>& tokens, int32_t index, int32_t id) {
    pages_.emplace(key(ns, tokens, (index + 1) * page_size_), Page{id, 0, 0});
  }
  void evict(int32_t count) {
    for (; count > 0; --count) {
      auto oldest = pages_.end();
      for (auto it = pages_.begin(); it != pages_.end(); ++it) {
        if (it->second.locks > 0 || has_child(it->first)) continue;
        if (oldest == pages_.end() || it->second.last_use < oldest->second.last_use) oldest = it;
      }
      if (oldest == pages_.end()) return;
      pages_.erase(oldest);
    }
  }
  int32_t evictable() const {
    return static_cast<int32_t>(
        std::count_if(pages_.begin(), pages_.end(), [](const auto& page) { return page.second.locks == 0; }));
  }
  const std::map<Key, Page>& pages() const { return pages_; }

 private:
  static Key key(const std::string& ns, const std::vector<int32_t>& tokens, int32_t end) {
    return {ns, std::vector<int32_t>(tokens.begin(), tokens.begin() + end)};
  }
  bool has_child(const Key& parent) const {
    auto next = std::next(pages_.find(parent));  // in lexicographic order, an extension comes right after
    return next != pages_.end() && next->first.first == parent.first &&
           next->first.second.size() > parent.second.size() &&
           std::equal(parent.second.begin(), parent.second.end(), next->first.second.begin());
  }

  int32_t page_size_;
  uint64_t tick_ = 0;
  std::map<Key, Page> pages_;
};

struct Live {
  std::string ns;
  std::vector<int32_t> tokens;
  BlockTable table;
  int32_t locked = 0;  // pages that the model has locked for it
  int32_t computed = 0;
  bool apart = false;  // met a page that was cached by another
};

class RandomActions {
 public:
  explicit RandomActions(uint64_t seed)
      : random_(seed),
        page_size_(1 + draw(4)),
        num_pages_(4 + draw(40)),
        alphabet_(1 + draw(3)),
        cache_({.num_pages = num_pages_, .page_size = page_size_}),
        model_(page_size_) {}

  void run(int actions) {
    for (int i = 0; i < actions; ++i) {
      step();
      check();
      if (testing::Test::HasFatalFailure()) return;
    }
    while (!live_.empty()) close(0);
    EXPECT_EQ(cache_.available_pages(), num_pages_);
    cache_.flush();
    EXPECT_EQ(cache_.free_pages(), num_pages_);
  }

 private:
  int32_t draw(int32_t below) { return static_cast<int32_t>(random_() % static_cast<uint64_t>(below)); }

  std::vector<int32_t> random_tokens() {
    std::vector<int32_t> tokens(static_cast<size_t>(draw(6 * page_size_ + 1)));
    for (int32_t& token : tokens) token = draw(alphabet_);
    return tokens;
  }

  void step() {
    switch (draw(10)) {
      case 0:
      case 1:
      case 2:
        return open();
      case 3:
      case 4:
      case 5:
        if (!live_.empty()) compute(static_cast<size_t>(draw(static_cast<int32_t>(live_.size()))));
        return;
      case 6:
      case 7:
        if (!live_.empty()) close(static_cast<size_t>(draw(static_cast<int32_t>(live_.size()))));
        return;
      case 8: {
        std::string ns = draw(2) == 0 ? "" : "x";
        auto tokens = random_tokens();
        auto expected = static_cast<int32_t>(model_.match(ns, tokens).size()) * page_size_;
        ASSERT_EQ(cache_.cached_tokens(ns, tokens), expected);
        return;
      }
      default:
        if (draw(20) == 0) {
          model_.evict(num_pages_);
          cache_.flush();
        }
    }
  }

  void open() {
    Live live{draw(3) == 0 ? "x" : "", random_tokens(), {}, 0, 0, false};
    auto expected = model_.match(live.ns, live.tokens);
    live.table = cache_.open(live.ns, live.tokens);
    ASSERT_EQ(live.table.pages, expected);
    live.locked = static_cast<int32_t>(expected.size());
    live.computed = live.locked * page_size_;
    model_.touch(live.ns, live.tokens, live.locked);
    model_.lock(live.ns, live.tokens, live.locked, 1);
    live_.push_back(std::move(live));
  }

  // Some more tokens of a sequence, sometimes committed.
  void compute(size_t index) {
    Live& live = live_[index];
    auto left = static_cast<int32_t>(live.tokens.size()) - live.computed;
    int32_t target = live.computed + draw(left + 1);
    int32_t need = cache_.pages_to_grow(live.table, target);
    int32_t free_before = cache_.free_pages();
    std::vector<int32_t> added;
    bool fits = need <= free_before + model_.evictable();
    ASSERT_EQ(cache_.grow(&live.table, target, &added), fits);
    if (!fits) return;
    if (need > free_before) model_.evict(need - free_before);
    live.computed = target;
    if (draw(2) == 0) {
      int32_t next = live.locked;
      if (next < live.computed / page_size_ && !live.apart) {
        live.apart = model_.has(live.ns, live.tokens, next);
        if (!live.apart) commit(live);
      }
      cache_.commit(&live.table, std::span<const int32_t>(live.tokens).first(static_cast<size_t>(target)));
    }
  }

  void commit(Live& live) {
    int32_t whole = live.computed / page_size_;
    for (int32_t i = live.locked; i < whole; ++i) {
      model_.add(live.ns, live.tokens, i, live.table.pages[static_cast<size_t>(i)]);
    }
    model_.lock(live.ns, live.tokens, live.locked, -1);
    live.locked = std::max(live.locked, whole);
    model_.lock(live.ns, live.tokens, live.locked, 1);
  }

  void close(size_t index) {
    Live live = std::move(live_[index]);
    live_.erase(live_.begin() + static_cast<std::ptrdiff_t>(index));
    commit(live);
    cache_.close(std::move(live.table),
                 std::span<const int32_t>(live.tokens).first(static_cast<size_t>(live.computed)));
    model_.touch(live.ns, live.tokens, live.locked);
    model_.lock(live.ns, live.tokens, live.locked, -1);
  }

  void check() {
    std::vector<const BlockTable*> tables;
    for (const Live& live : live_) tables.push_back(&live.table);
    auto integrity = cache_.check_integrity(tables);
    ASSERT_TRUE(integrity.ok()) << integrity.error().message;
    ASSERT_EQ(cache_.evictable_pages(), model_.evictable());
    size_t private_pages = 0;
    for (const Live& live : live_) {
      private_pages += live.table.pages.size() - static_cast<size_t>(live.table.committed);
    }
    ASSERT_EQ(static_cast<size_t>(num_pages_ - cache_.free_pages()), model_.pages().size() + private_pages);
    ASSERT_EQ(static_cast<size_t>(cache_.private_pages()), private_pages);
    for (const auto& [key, page] : model_.pages()) {
      ASSERT_EQ(cache_.cached_tokens(key.first, key.second), static_cast<int32_t>(key.second.size()));
    }
  }

  std::mt19937_64 random_;
  int32_t page_size_;
  int32_t num_pages_;
  int32_t alphabet_;
  KvCache cache_;
  NaiveCache model_;
  std::vector<Live> live_;
};

TEST(KvCachePropertyTest, RandomActionsAgreeWithTheNaiveModel) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    RandomActions(seed).run(200);
    if (HasFailure()) return;
  }
}

TEST(KvCacheDeathTest, GivingBackAPageTwiceIsABug) {
  PagePool pool(2);
  std::vector<int32_t> pages;
  ASSERT_TRUE(pool.allocate(1, &pages));
  EXPECT_FALSE(pool.allocate(2, &pages));
  EXPECT_EQ(pages.size(), 1U);
  pool.release(pages[0]);
  EXPECT_DEATH(pool.release(pages[0]), "given back twice");
}

TEST(KvCacheIntegrityTest, ALostPageAndAStolenPageAreSeen) {
  KvCache cache({.num_pages = 4, .page_size = 1});
  std::vector<int32_t> added;
  BlockTable table = cache.open("", {});
  ASSERT_TRUE(cache.grow(&table, 2, &added));
  std::vector<const BlockTable*> tables{&table};
  EXPECT_TRUE(cache.check_integrity(tables).ok());
  int32_t page = table.pages.back();
  table.pages.pop_back();
  EXPECT_FALSE(cache.check_integrity(tables).ok());
  table.pages.push_back(table.pages.front());
  EXPECT_FALSE(cache.check_integrity(tables).ok());
  table.pages.back() = page;
  EXPECT_TRUE(cache.check_integrity(tables).ok());
  EXPECT_EQ(cache.private_pages(), 2);
  EXPECT_FALSE(cache.check_integrity({}).ok());  // a table that nobody named: its lock is not accounted for
  cache.close(std::move(table), {});
}

}  // namespace
}  // namespace fathom::kv

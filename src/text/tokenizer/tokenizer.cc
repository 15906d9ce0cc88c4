#include "text/tokenizer/tokenizer.h"

#include <algorithm>
#include <atomic>
#include <iterator>
#include <mutex>

#include "text/tokenizer/byte_level.h"
#include "text/tokenizer/utf8.h"
#include "text/tokenizer/word_cache.h"

namespace fathom::text {
namespace {

uint64_t next_serial() {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

// The caches of all tokenizers, lent to one encoding thread at a time. A server has a thread for each of a
// thousand clients, of which few encode at once: a cache for every thread would be gigabytes. Thread safe.
class CachePool {
 public:
  static constexpr size_t kMost = 16;
  struct Owned {
    uint64_t owner = 0;  // the tokenizer whose words these are
    std::unique_ptr<WordCache> cache;
  };

  // The words of `owner` as far as some are known; null when all caches are lent.
  std::unique_ptr<Owned> borrow(uint64_t owner) {
    std::unique_ptr<Owned> lent;
    {
      std::lock_guard lock(mutex_);
      auto found = std::find_if(free_.rbegin(), free_.rend(),
                                [&](const auto& candidate) { return candidate->owner == owner; });
      if (found == free_.rend() && made_ == kMost) found = free_.rbegin();
      if (found != free_.rend()) {
        lent = std::move(*found);
        free_.erase(std::next(found).base());
      } else if (made_ < kMost) {
        ++made_;
        lent = std::make_unique<Owned>();
      }
    }
    if (lent != nullptr && lent->owner != owner) *lent = {owner, std::make_unique<WordCache>()};
    return lent;
  }
  void give_back(std::unique_ptr<Owned> lent) {
    std::lock_guard lock(mutex_);
    free_.push_back(std::move(lent));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Owned>> free_;  // the last one given back is the warmest
  size_t made_ = 0;
};

CachePool& cache_pool() {
  static auto* pool = new CachePool();  // never destroyed: threads may encode to the very end
  return *pool;
}

// A cache for as long as it lives, or none.
class BorrowedCache {
 public:
  explicit BorrowedCache(uint64_t owner) : lent_(cache_pool().borrow(owner)) {}
  ~BorrowedCache() {
    if (lent_ != nullptr) cache_pool().give_back(std::move(lent_));
  }
  BorrowedCache(const BorrowedCache&) = delete;
  BorrowedCache& operator=(const BorrowedCache&) = delete;
  WordCache* get() const { return lent_ == nullptr ? nullptr : lent_->cache.get(); }

 private:
  std::unique_ptr<CachePool::Owned> lent_;
};

}  // namespace

Tokenizer::Tokenizer() : serial_(next_serial()) {}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  std::string repaired;
  if (!is_valid_utf8(text)) {
    repaired = repair_utf8(text);
    text = repaired;
  }
  std::vector<int32_t> ids;
  if (add_special_tokens) ids = prefix_ids_;
  const auto push = [&ids](int32_t id) { ids.push_back(id); };
  const auto encode_normalized = [&](std::string_view piece) { encode_text(piece, &ids); };
  raw_added_.split(
      text,
      [&](std::string_view piece) {
        if (normalizer_->empty()) {
          normalized_added_.split(piece, encode_normalized, push);
        } else {
          normalized_added_.split(normalizer_->apply(piece), encode_normalized, push);
        }
      },
      push);
  if (add_special_tokens) ids.insert(ids.end(), suffix_ids_.begin(), suffix_ids_.end());
  return ids;
}

void Tokenizer::encode_text(std::string_view text, std::vector<int32_t>* ids) const {
  const BorrowedCache borrowed(serial_);
  WordCache* const cache = borrowed.get();
  const auto encode_piece = [&](std::string_view piece) {
    if (cache == nullptr || piece.size() > WordCache::kMaxWord) {
      bpe_->encode(piece, ids);
      return;
    }
    const WordCache::Key key(piece);
    WordCache::Entry& entry = cache->slot(key);
    if (entry.key == key) {
      ids->insert(ids->end(), entry.ids.begin(), entry.ids.begin() + entry.id_count);
      return;
    }
    const size_t before = ids->size();
    bpe_->encode(piece, ids);
    const size_t count = ids->size() - before;
    if (count > WordCache::kMaxIds) return;
    entry.key = key;
    entry.id_count = static_cast<int32_t>(count);
    std::copy(ids->end() - static_cast<ptrdiff_t>(count), ids->end(), entry.ids.begin());
  };
  pre_tokenizer_->for_each_word(text, [&](std::string_view word) {
    // Words of scripts that have spaces between words repeat as a whole; others, and very long ones, in
    // pieces.
    const bool whole = word.size() <= WordCache::kMaxWord && static_cast<uint8_t>(word[0]) < 0xE0;
    if (whole || !barriers_) {
      encode_piece(word);
      return;
    }
    for (size_t begin = 0; begin < word.size();) {
      const size_t end = barriers_->piece_end(word, begin);
      encode_piece(word.substr(begin, end - begin));
      begin = end;
    }
  });
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (!skip_special || !is_special(id)) bytes += vocabulary_.bytes(id);
  }
  return is_valid_utf8(bytes) ? bytes : repair_utf8(bytes);
}

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  const auto added =
      std::lower_bound(added_tokens_.begin(), added_tokens_.end(), token,
                       [](const AddedToken& t, std::string_view wanted) { return t.content < wanted; });
  if (added != added_tokens_.end() && added->content == token) return added->id;
  if (!is_valid_utf8(token)) return std::nullopt;
  const auto bytes = byte_level_decode(token);
  const int32_t id = bytes ? vocabulary_.find(*bytes) : -1;
  return id < 0 ? std::nullopt : std::optional(id);
}

}  // namespace fathom::text

// A small table from words to their tokens. A word that comes again, as most do, is not merged again.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace fathom::text {

// Direct-mapped: a word replaces the one that had its slot, so the size is fixed (2 MiB). Not thread safe.
class WordCache {
 public:
  static constexpr size_t kMaxWord = 30;  // bytes
  static constexpr size_t kMaxIds = 7;

  // A word of 1 to kMaxWord bytes, padded with zeros; its length in byte 30.
  class Key {
   public:
    Key() = default;  // of no word
    explicit Key(std::string_view word) {
      std::memcpy(parts_.data(), word.data(), word.size());
      parts_[3] |= uint64_t{word.size()} << 48;
    }
    bool operator==(const Key&) const = default;
    size_t hash(int bits) const {
      constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15u;
      const uint64_t low = (parts_[0] ^ std::rotl(parts_[2], 29)) * kMultiplier;
      const uint64_t high = (parts_[1] ^ std::rotl(parts_[3], 31)) * kMultiplier;
      return (low ^ std::rotl(high, 32)) * kMultiplier >> (64 - bits);
    }

   private:
    static_assert(std::endian::native == std::endian::little);
    std::array<uint64_t, 4> parts_{};
  };

  struct Entry {
    Key key;
    int32_t id_count = 0;
    std::array<int32_t, kMaxIds> ids{};
  };

  WordCache() : entries_(size_t{1} << kLogEntries) {}

  // The only slot that may hold the word.
  Entry& slot(const Key& key) { return entries_[key.hash(kLogEntries)]; }

 private:
  static constexpr int kLogEntries = 15;

  std::vector<Entry> entries_;
};
static_assert(sizeof(WordCache::Entry) == 64, "one cache line");

}  // namespace fathom::text

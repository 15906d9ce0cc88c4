// A small table from words to their tokens. A word that comes again, as most do, is not merged again.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace fathom::text {

// Direct-mapped: a word replaces the one that had its slot, so the size is fixed (1 MiB). Not thread safe:
// each thread has its own.
class WordCache {
 public:
  static constexpr size_t kMaxWord = 30;  // bytes
  static constexpr size_t kMaxIds = 8;

  struct Entry {
    uint8_t word_length = 0;  // 0: free
    uint8_t id_count = 0;
    std::array<char, kMaxWord> word{};
    std::array<int32_t, kMaxIds> ids{};

    bool holds(std::string_view wanted) const {
      return word_length == wanted.size() && std::memcmp(word.data(), wanted.data(), wanted.size()) == 0;
    }
    void set(std::string_view new_word, const int32_t* new_ids, size_t count) {
      word_length = static_cast<uint8_t>(new_word.size());
      id_count = static_cast<uint8_t>(count);
      std::memcpy(word.data(), new_word.data(), new_word.size());
      std::memcpy(ids.data(), new_ids, count * sizeof(int32_t));
    }
  };

  WordCache() : entries_(size_t{1} << kLogEntries) {}

  // The slot of a word of 1 to kMaxWord bytes.
  Entry& slot(std::string_view word) { return entries_[hash(word) >> (64 - kLogEntries)]; }

 private:
  static constexpr int kLogEntries = 14;

  static uint64_t hash(std::string_view word) {
    constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15u;
    uint64_t state = word.size();
    const char* p = word.data();
    size_t left = word.size();
    for (; left > 8; left -= 8, p += 8) {
      uint64_t part;
      std::memcpy(&part, p, 8);
      state = (state ^ part) * kMultiplier;
      state ^= state >> 32;
    }
    uint64_t part = 0;
    std::memcpy(&part, p, left);
    return (state ^ part) * kMultiplier;
  }

  std::vector<Entry> entries_;
};
static_assert(sizeof(WordCache::Entry) == 64, "one cache line");

}  // namespace fathom::text

// Byte pair encoding: a word's bytes become tokens by merging, again and again, the neighbours whose pair was
// learnt first; of equal pairs the leftmost.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/tokenizer/vocabulary.h"

namespace fathom::text {

// Immutable after parse(); encode() may run on many threads at once.
class Bpe {
 public:
  // From the value of "model". Adds the tokens of its vocabulary to *vocabulary (empty before) as bytes.
  static Result<Bpe> parse(const nlohmann::json& model, Vocabulary* vocabulary);

  // Appends the tokens of one word. A byte that the vocabulary lacks is left out, as the reference does.
  // O(n^2) for words up to kShortWord bytes, O(n log n) above.
  void encode(std::string_view word, std::vector<int32_t>* ids) const;

  // Whether a word that is a token is taken as it is ("ignore_merges"): then a word may not be encoded in
  // pieces.
  bool takes_whole_words() const { return whole_words_ != nullptr; }

  static constexpr size_t kShortWord = 64;

 private:
  static constexpr uint32_t kNoRank = ~uint32_t{0};

  Result<void> parse_merges(const nlohmann::json& merges, const Vocabulary& vocabulary);
  void set_rank(uint32_t left, uint32_t right, uint32_t rank);
  // The rank of the merge of two tokens; lower was learnt earlier.
  uint32_t rank(uint32_t left, uint32_t right) const;
  void encode_short(std::string_view word, std::vector<int32_t>* ids) const;
  void encode_long(std::string_view word, std::vector<int32_t>* ids) const;

  std::array<int32_t, 256> byte_id_{};    // the token of each byte, -1 for none
  std::vector<uint32_t> byte_pair_rank_;  // [256 * 256]: the first round of ranks, without hashing
  std::vector<int32_t> merged_id_;        // by rank: the token that the merge makes
  std::vector<uint64_t> pairs_;           // open-addressed: left << 42 | right << 21 | rank; ~0 is free
  int pair_shift_ = 0;
  const Vocabulary* whole_words_ = nullptr;  // set by "ignore_merges": a word that is a token is that token
};

}  // namespace fathom::text

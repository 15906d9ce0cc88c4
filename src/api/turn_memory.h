// Which tokens an answer was made of, for when it comes back as a message of the next request. A model does
// not always write text in the tokens that the tokenizer would choose for it, so tokenising an answer again
// can give other tokens, and the prefix cache would not find the turn. Bounded; the oldest answers are
// forgotten.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/tokenizer/tokenizer.h"

namespace fathom::api {

// Thread safe. Answers are known within their cache namespace only.
class TurnMemory {
 public:
  static constexpr size_t kMaxBytes = size_t{64} << 20;
  static constexpr size_t kMaxTurns = 4096;

  // `tokenizer` must outlive it.
  explicit TurnMemory(const text::Tokenizer& tokenizer, size_t max_bytes = kMaxBytes);

  // `prompt`: the text that was tokenised to `prompt_ids`; `output_ids`: what the model wrote after it.
  void remember(const std::string& cache_namespace, std::string_view prompt,
                const std::vector<int32_t>& prompt_ids, const std::vector<int32_t>& output_ids);

  // How a text begins: with the longest prompt that is remembered, and the answer to it where it follows.
  struct Begin {
    std::vector<int32_t> ids;
    size_t bytes = 0;  // of the text that they stand for; the rest is still to be tokenised
  };
  Begin recall(const std::string& cache_namespace, std::string_view text) const;

  size_t turns() const;

 private:
  struct Turn {
    std::string cache_namespace;
    std::string prompt;
    std::vector<int32_t> prompt_ids;
    std::vector<int32_t> output_ids;
    uint64_t hash = 0;

    size_t bytes() const;
  };

  uint64_t hash_of(const std::string& cache_namespace, std::string_view text) const;
  void forget_oldest();
  // The tokens of the turn's answer that `text` goes on with, and where they end.
  size_t follow(const Turn& turn, std::string_view text, size_t* end) const;

  const text::Tokenizer& tokenizer_;
  const size_t max_bytes_;
  const std::string end_of_turn_;  // the text of the end-of-sentence token
  const uint64_t factor_;          // of the hash; nobody outside knows it
  mutable std::mutex mutex_;
  std::list<Turn> turns_;  // newest first
  std::unordered_multimap<uint64_t, std::list<Turn>::iterator> by_hash_;
  std::map<size_t, size_t> lengths_;  // of prompts, and how many have it
  size_t bytes_ = 0;
};

}  // namespace fathom::api

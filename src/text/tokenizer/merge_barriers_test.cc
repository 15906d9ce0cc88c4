#include "text/tokenizer/merge_barriers.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "text/tokenizer/bpe.h"
#include "text/tokenizer/byte_level.h"

namespace fathom::text {
namespace {

const std::vector<std::string>& alphabet() {
  static const std::vector<std::string> characters = {"中", "丮", "文", "é", "ê", "a", "😀", "😁"};
  return characters;
}

std::string random_word(std::mt19937_64& random, size_t length) {
  std::string word;
  for (; length > 0; --length) word += alphabet()[random() % alphabet().size()];
  return word;
}

// All bytes, and merges learnt from random words as a trainer would: so some tokens end inside a character.
nlohmann::json random_model(std::mt19937_64& random) {
  nlohmann::json vocab = nlohmann::json::object();
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    vocab[byte_level_encode({&c, 1})] = byte;
  }
  auto merges = nlohmann::json::array();
  std::vector<std::string> symbols;
  for (const char c : random_word(random, 40)) symbols.emplace_back(1, c);
  for (auto count = random() % 40; count > 0 && symbols.size() > 1; --count) {
    const size_t at = random() % (symbols.size() - 1);
    const std::string left = symbols[at];
    const std::string right = symbols[at + 1];
    const std::string merged = byte_level_encode(left + right);
    if (!vocab.contains(merged)) vocab[merged] = vocab.size();
    merges.push_back({byte_level_encode(left), byte_level_encode(right)});
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      if (symbols[i] != left || symbols[i + 1] != right) continue;
      symbols[i] += right;
      symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(i) + 1);
    }
  }
  return {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}};
}

TEST(MergeBarriers, PiecesGiveTheTokensOfTheWholeWord) {
  std::mt19937_64 random(23);
  int pieces = 0;
  int characters = 0;
  for (int round = 0; round < 300; ++round) {
    Vocabulary vocabulary;
    const auto bpe = Bpe::parse(random_model(random), &vocabulary);
    ASSERT_TRUE(bpe.ok());
    const MergeBarriers barriers(vocabulary);
    for (int i = 0; i < 20; ++i) {
      const size_t length = 1 + random() % 20;
      const std::string word = random_word(random, length);
      std::vector<int32_t> whole;
      bpe->encode(word, &whole);
      std::vector<int32_t> in_pieces;
      for (size_t begin = 0; begin < word.size(); ++pieces) {
        const size_t end = barriers.piece_end(word, begin);
        ASSERT_GT(end, begin);
        bpe->encode(std::string_view(word).substr(begin, end - begin), &in_pieces);
        begin = end;
      }
      characters += static_cast<int>(length);
      ASSERT_EQ(in_pieces, whole) << word;
    }
  }
  // It must cut, and not everywhere.
  EXPECT_GT(pieces, characters / 4);
  EXPECT_LT(pieces, characters * 9 / 10);
}

}  // namespace
}  // namespace fathom::text

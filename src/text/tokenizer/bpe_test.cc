#include "text/tokenizer/bpe.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "text/tokenizer/byte_level.h"

namespace fathom::text {
namespace {

// A BPE model over all bytes with these merges, each "left right" in plain ASCII.
nlohmann::json model(const std::vector<std::string>& merges) {
  nlohmann::json vocab = nlohmann::json::object();
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    vocab[byte_level_encode({&c, 1})] = byte;
  }
  int next = 256;
  for (const auto& merge : merges) {
    std::string merged = merge;
    merged.erase(merged.find(' '), 1);
    if (!vocab.contains(merged)) vocab[merged] = next++;
  }
  return {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}};
}

struct Loaded {
  Vocabulary vocabulary;
  Bpe bpe;
};

std::unique_ptr<Loaded> load(const nlohmann::json& json) {
  auto loaded = std::make_unique<Loaded>();
  auto bpe = Bpe::parse(json, &loaded->vocabulary);
  EXPECT_TRUE(bpe.ok()) << (bpe.ok() ? "" : bpe.error().message);
  if (bpe.ok()) loaded->bpe = std::move(bpe).value();
  return loaded;
}

std::vector<std::string> tokens_of(const Loaded& loaded, std::string_view word) {
  std::vector<int32_t> ids;
  loaded.bpe.encode(word, &ids);
  std::vector<std::string> tokens;
  for (const int32_t id : ids) tokens.emplace_back(loaded.vocabulary.bytes(id));
  return tokens;
}

// The definition, word for word: merge the leftmost of the neighbours with the lowest rank, until none is
// left.
std::vector<std::string> merge_by_definition(const std::vector<std::string>& merges, std::string_view word) {
  std::map<std::string, size_t> rank;
  for (size_t i = 0; i < merges.size(); ++i) rank[merges[i]] = i;
  std::vector<std::string> symbols;
  for (const char c : word) symbols.emplace_back(1, c);
  while (true) {
    size_t best = merges.size();
    size_t at = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = rank.find(symbols[i] + " " + symbols[i + 1]);
      if (found != rank.end() && found->second < best) {
        best = found->second;
        at = i;
      }
    }
    if (best == merges.size()) return symbols;
    symbols[at] += symbols[at + 1];
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(at) + 1);
  }
}

// Random merges over few letters: trained-like when `ordered`, else with ranks shuffled, so that a merge may
// make a pair of lower rank than its own, and with several ways to make one token.
std::vector<std::string> random_merges(std::mt19937_64& random, bool ordered) {
  std::vector<std::string> tokens = {"a", "b", "c"};
  std::vector<std::string> merges;
  const size_t count = 3 + random() % 30;
  while (merges.size() < count) {
    const std::string left = tokens[random() % tokens.size()];
    const std::string right = tokens[random() % tokens.size()];
    const bool known = std::find(tokens.begin(), tokens.end(), left + right) != tokens.end();
    const std::string merge = left + " " + right;
    if (left.size() + right.size() > 12 || (known && ordered)) {
      if (random() % 64 == 0) break;
      continue;
    }
    if (std::find(merges.begin(), merges.end(), merge) != merges.end()) continue;
    merges.push_back(merge);
    if (!known) tokens.push_back(left + right);
  }
  if (!ordered) std::shuffle(merges.begin(), merges.end(), random);
  return merges;
}

TEST(Bpe, MergesByRankAndFromTheLeft) {
  const auto loaded = load(model({"a b", "b c", "ab c", "a a"}));
  using Tokens = std::vector<std::string>;
  EXPECT_EQ(tokens_of(*loaded, "abc"), (Tokens{"abc"}));
  EXPECT_EQ(tokens_of(*loaded, "bcab"), (Tokens{"bc", "ab"}));
  EXPECT_EQ(tokens_of(*loaded, "aaa"), (Tokens{"aa", "a"}));
  EXPECT_EQ(tokens_of(*loaded, "aab"), (Tokens{"a", "ab"}));
  EXPECT_EQ(tokens_of(*loaded, ""), Tokens{});
  EXPECT_EQ(tokens_of(*loaded, "\xFF\x00z"), (Tokens{"\xFF"}));
}

TEST(Bpe, EqualsTheDefinitionOnRandomModels) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 400; ++round) {
    const auto merges = random_merges(random, round % 2 == 0);
    const auto loaded = load(model(merges));
    for (int i = 0; i < 20; ++i) {
      // Long enough at times for the queue of encode_long.
      std::string word(random() % (i % 4 == 0 ? 3 * Bpe::kShortWord : 20), 'a');
      for (char& c : word) c = static_cast<char>('a' + random() % 3);
      ASSERT_EQ(tokens_of(*loaded, word), merge_by_definition(merges, word))
          << word << nlohmann::json(merges);
    }
  }
}

TEST(Bpe, ByteOutsideTheVocabularyIsLeftOut) {
  auto json = model({"a b"});
  json["vocab"].erase("x");
  EXPECT_EQ(tokens_of(*load(json), "axbx"), (std::vector<std::string>{"ab"}));
  EXPECT_EQ(tokens_of(*load(json), std::string(200, 'x')), std::vector<std::string>{});
}

TEST(Bpe, IgnoreMergesTakesAWholeWordFromTheVocabulary) {
  auto json = model({"a b"});
  json["vocab"]["cab"] = 999;
  EXPECT_EQ(tokens_of(*load(json), "cab"), (std::vector<std::string>{"c", "ab"}));
  json["ignore_merges"] = true;
  EXPECT_EQ(tokens_of(*load(json), "cab"), (std::vector<std::string>{"cab"}));
  EXPECT_EQ(tokens_of(*load(json), "ccab"), (std::vector<std::string>{"c", "c", "ab"}));
}

TEST(Bpe, MergesMayBePairs) {
  auto json = model({"a b"});
  json["merges"] = nlohmann::json::array({nlohmann::json::array({"a", "b"})});
  EXPECT_EQ(tokens_of(*load(json), "ab"), (std::vector<std::string>{"ab"}));
}

TEST(Bpe, RefusesABrokenModel) {
  const auto message = [](const nlohmann::json& json) {
    Vocabulary vocabulary;
    const auto bpe = Bpe::parse(json, &vocabulary);
    return bpe.ok() ? std::string("no error") : bpe.error().message;
  };
  const auto with = [](const char* field, const nlohmann::json& value) {
    auto json = model({"a b"});
    json[field] = value;
    return json;
  };
  EXPECT_EQ(message(with("unk_token", nullptr)), "no error");
  EXPECT_EQ(message(with("end_of_word_suffix", "")), "no error");
  EXPECT_NE(message(with("type", "Unigram")).find("\"Unigram\" is not supported"), std::string::npos);
  EXPECT_NE(message(with("byte_fallback", true)).find("'byte_fallback' = true"), std::string::npos);
  EXPECT_NE(message(with("dropout", 0.1)).find("'dropout' = 0.1"), std::string::npos);
  EXPECT_NE(message(with("merges", nlohmann::json::array({"a c"}))).find("merge 0: 'a' + 'c'"),
            std::string::npos);
  EXPECT_NE(message(with("merges", nlohmann::json::array({"abc"}))).find("a merge must be"),
            std::string::npos);
  EXPECT_NE(message(with("merges", nlohmann::json::array({"a b c"}))).find("a merge must be"),
            std::string::npos);
  EXPECT_NE(message(with("merges", 3)).find("'merges' must be an array"), std::string::npos);
  EXPECT_NE(message(with("vocab", {{"a", -1}})).find("got -1"), std::string::npos);
  EXPECT_NE(message(with("vocab", {{"a", 4000000000}})).find("got 4000000000"), std::string::npos);
  EXPECT_NE(message(with("vocab", {{"a", 1}, {"b", 1}})).find("two tokens have the id 1"), std::string::npos);
  EXPECT_NE(message(nullptr).find("model type null"), std::string::npos);
}

}  // namespace
}  // namespace fathom::text

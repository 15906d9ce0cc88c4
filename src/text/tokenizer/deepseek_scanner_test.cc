#include "text/tokenizer/deepseek_scanner.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "text/tokenizer/pre_tokenizer.h"
#include "text/tokenizer/random_text.h"
#include "text/tokenizer/regex.h"

namespace fathom::text {
namespace {

nlohmann::json deepseek_pre_tokenizer() {
  auto members = nlohmann::json::array();
  for (const auto& pattern : DeepseekScanner::patterns()) {
    members.push_back(
        {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  }
  members.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}});
  return {{"type", "Sequence"}, {"pretokenizers", members}};
}

std::vector<std::string> words_of(const PreTokenizer& pre_tokenizer, std::string_view text) {
  std::vector<std::string> words;
  pre_tokenizer.for_each_word(text, [&](std::string_view word) { words.emplace_back(word); });
  return words;
}

// By code point: the category as the system's regex engine sees it, 0 for none.
const std::vector<CharClass>& engine_categories() {
  static const std::vector<CharClass> categories = [] {
    std::vector<CharClass> result(0x110000, 0);
    std::string all;
    for (char32_t c = 0; c < 0x110000; ++c) {
      if (c < 0xD800 || c >= 0xE000) append_utf8(c, &all);
    }
    const std::pair<const char*, CharClass> patterns[] = {{R"(\p{L})", kLetter}, {R"(\p{M})", kMark},
                                                          {R"(\p{N})", kNumber}, {R"(\p{P})", kPunctuation},
                                                          {R"(\p{S})", kSymbol}, {R"(\s)", kSpace}};
    for (const auto& [pattern, char_class] : patterns) {
      const auto regex = Regex::compile(pattern);
      regex->for_each_match(all, [&, bit = char_class](size_t begin, size_t end) {
        result[decode_utf8(all.data() + begin, end - begin)] |= bit;
      });
    }
    return result;
  }();
  return categories;
}

constexpr CharClass kCategories = kLetter | kMark | kNumber | kPunctuation | kSymbol | kSpace;

// Our table is of Unicode 16; an older engine knows fewer characters but may not differ in those it knows.
TEST(UnicodeClasses, AgreeWithTheRegexEngineWhereItKnowsTheCharacter) {
  int unknown = 0;
  for (char32_t c = 0; c < 0x110000; ++c) {
    const CharClass ours = UnicodeClasses::get().of(c) & kCategories;
    const CharClass engine = engine_categories()[c];
    if (ours == engine) continue;
    ++unknown;
    ASSERT_EQ(engine, 0) << static_cast<uint32_t>(c);
  }
  EXPECT_LT(unknown, 15000);
}

TEST(DeepseekScanner, IsChosenForItsPatternsOnly) {
  auto json = deepseek_pre_tokenizer();
  EXPECT_TRUE(PreTokenizer::parse(json)->uses_scanner());
  EXPECT_FALSE(PreTokenizer::parse_as_regex(json)->uses_scanner());
  auto& last = json["pretokenizers"][2]["pattern"]["Regex"].get_ref<std::string&>();
  std::string literal_breaks;
  for (size_t i = 0; i < last.size(); ++i) {
    if (last.compare(i, 2, "\\r") == 0 || last.compare(i, 2, "\\n") == 0) {
      literal_breaks += last[++i] == 'r' ? '\r' : '\n';
    } else {
      literal_breaks += last[i];
    }
  }
  ASSERT_NE(literal_breaks, last);
  last = literal_breaks;
  EXPECT_TRUE(PreTokenizer::parse(json)->uses_scanner());
  last += "|x";
  EXPECT_FALSE(PreTokenizer::parse(json)->uses_scanner());
  json = deepseek_pre_tokenizer();
  json["pretokenizers"][1]["behavior"] = "Removed";
  EXPECT_FALSE(PreTokenizer::parse(json)->uses_scanner());
}

TEST(DeepseekScanner, GivesTheWordsOfItsRegexes) {
  const auto scanner = PreTokenizer::parse(deepseek_pre_tokenizer());
  const auto regex = PreTokenizer::parse_as_regex(deepseek_pre_tokenizer());
  EXPECT_EQ(words_of(*scanner, "Hello, world'll 12345  x\n\n  東京タワーです。"),
            (std::vector<std::string>{"Hello", ",", " world", "'ll", " ", "123", "45", " ", " x", "\n\n",
                                      "  ", "東京タワーです", "。"}));
  EXPECT_TRUE(words_of(*scanner, "").empty());

  std::mt19937_64 random(20240117);
  int compared = 0;
  for (int round = 0; round < 60000; ++round) {
    std::string text = random_text(random, 1 + random() % 24);
    bool known = true;
    for (size_t pos = 0; pos < text.size(); pos += utf8_length(text[pos])) {
      const char32_t c = decode_utf8(text.data() + pos, utf8_length(text[pos]));
      known &= (UnicodeClasses::get().of(c) & kCategories) == engine_categories()[c];
    }
    if (!known) continue;
    ++compared;
    ASSERT_EQ(words_of(*scanner, text), words_of(*regex, text)) << ::testing::PrintToString(text);
  }
  EXPECT_GT(compared, 50000);
}

TEST(DeepseekScanner, IsLinearOnLongRuns) {
  const auto scanner = PreTokenizer::parse(deepseek_pre_tokenizer());
  for (const std::string unit : {" ", "\n ", "\u200d", "a", "!", "1", "。", "\t\r\n"}) {
    std::string text;
    while (text.size() < (2u << 20)) text += unit;
    size_t bytes = 0;
    scanner->for_each_word(text, [&](std::string_view word) { bytes += word.size(); });
    EXPECT_EQ(bytes, text.size());
  }
}

}  // namespace
}  // namespace fathom::text

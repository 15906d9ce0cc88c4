#include "text/tokenizer/pre_tokenizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace fathom::text {
namespace {

using Words = std::vector<std::string>;

nlohmann::json split(const char* kind, const char* pattern, const char* behavior, bool invert = false) {
  return {{"type", "Split"}, {"pattern", {{kind, pattern}}}, {"behavior", behavior}, {"invert", invert}};
}

Words words(std::vector<nlohmann::json> members, std::string_view text, bool prefix_space = false,
            bool use_regex = false) {
  members.push_back({{"type", "ByteLevel"}, {"add_prefix_space", prefix_space}, {"use_regex", use_regex}});
  const auto pre_tokenizer = PreTokenizer::parse({{"type", "Sequence"}, {"pretokenizers", members}});
  EXPECT_TRUE(pre_tokenizer.ok()) << (pre_tokenizer.ok() ? "" : pre_tokenizer.error().message);
  Words result;
  if (pre_tokenizer.ok()) {
    pre_tokenizer->for_each_word(text, [&](std::string_view word) { result.emplace_back(word); });
  }
  return result;
}

// The expected words are what Hugging Face tokenizers 0.23 gives for the same pieces.
TEST(PreTokenizer, SplitBehaviors) {
  const std::string_view text = "-a--b-";
  EXPECT_EQ(words({split("String", "-", "Isolated")}, text), (Words{"-", "a", "-", "-", "b", "-"}));
  EXPECT_EQ(words({split("String", "-", "Removed")}, text), (Words{"a", "b"}));
  EXPECT_EQ(words({split("String", "-", "Contiguous")}, text), (Words{"-", "a", "--", "b", "-"}));
  EXPECT_EQ(words({split("String", "-", "MergedWithPrevious")}, text), (Words{"-", "a-", "-", "b-"}));
  EXPECT_EQ(words({split("String", "-", "MergedWithNext")}, text), (Words{"-a", "-", "-b", "-"}));
  EXPECT_EQ(words({split("Regex", "[a-z]+", "Removed", true)}, text), (Words{"a", "b"}));
  EXPECT_EQ(words({split("String", ".*", "Isolated")}, "a.*b"), (Words{"a", ".*", "b"}));
}

TEST(PreTokenizer, Digits) {
  EXPECT_EQ(words({{{"type", "Digits"}, {"individual_digits", true}}}, "ab12½c"),
            (Words{"ab", "1", "2", "½", "c"}));
  EXPECT_EQ(words({{{"type", "Digits"}, {"individual_digits", false}}}, "ab12½c"), (Words{"ab", "12½", "c"}));
}

TEST(PreTokenizer, Punctuation) {
  EXPECT_EQ(words({{{"type", "Punctuation"}}}, "a$b。c"), (Words{"a", "$", "b", "。", "c"}));
  EXPECT_EQ(words({{{"type", "Punctuation"}, {"behavior", "Removed"}}}, "a$b。c"), (Words{"a", "b", "c"}));
}

TEST(PreTokenizer, ByteLevelPrefixSpaceAndRegex) {
  EXPECT_EQ(words({}, "it's 12  ok", true, true), (Words{" it", "'s", " 12", " ", " ok"}));
  EXPECT_EQ(words({}, " x", true, false), (Words{" x"}));
  EXPECT_EQ(words({split("String", "-", "Removed")}, "a-b", true), (Words{" a", " b"}));
  EXPECT_EQ(words({}, "", true, true), Words{});
}

TEST(PreTokenizer, RefusesWhatItDoesNotKnowByName) {
  const auto message = [](const nlohmann::json& json) {
    const auto result = PreTokenizer::parse(json);
    return result.ok() ? std::string("no error") : result.error().message;
  };
  const nlohmann::json byte_level = {{"type", "ByteLevel"}};
  const auto sequence = [&](nlohmann::json member) -> nlohmann::json {
    return {{"type", "Sequence"}, {"pretokenizers", {std::move(member), byte_level}}};
  };
  EXPECT_NE(message({{"type", "Metaspace"}}).find("'Metaspace' is not supported"), std::string::npos);
  EXPECT_NE(message(sequence(byte_level)).find("after ByteLevel"), std::string::npos);
  EXPECT_NE(message(sequence(split("Regex", "(", "Isolated"))).find("does not compile"), std::string::npos);
  EXPECT_NE(message(sequence(split("Regex", "a", "Sideways"))).find("'Sideways'"), std::string::npos);
  EXPECT_NE(message(split("Regex", "a", "Isolated")).find("no ByteLevel"), std::string::npos);
  EXPECT_NE(message(nullptr).find("'type' must be a string"), std::string::npos);
  nlohmann::json nested = byte_level;
  for (int depth = 0; depth < 40; ++depth)
    nested = {{"type", "Sequence"}, {"pretokenizers", nlohmann::json::array({nested})}};
  EXPECT_NE(message(nested).find("nested"), std::string::npos);
}

}  // namespace
}  // namespace fathom::text

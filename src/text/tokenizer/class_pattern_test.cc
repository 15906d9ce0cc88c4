#include "text/tokenizer/class_pattern.h"

#include <gtest/gtest.h>

#include "text/tokenizer/random_text.h"
#include "text/tokenizer/regex.h"

namespace fathom::text {
namespace {

using Matches = std::vector<std::pair<size_t, size_t>>;

template <class Pattern>
Matches matches_of(const Pattern& pattern, std::string_view text) {
  Matches matches;
  pattern.for_each_match(text, [&](size_t begin, size_t end) { matches.emplace_back(begin, end); });
  return matches;
}

TEST(ClassPattern, KnowsItsShapeOnly) {
  for (const char* regex :
       {"a",          "a+",          "[^a]",      "[a",    "[a-]",    "[]",      "[b-a]",
        "[a&&b]",     "[[:alpha:]]", "[\\d]",     "[\\w]", "\\p{Lu}", "\\p{L}*", "\\p{L}{2}",
        "\\p{L}{1,}", "\\p{L}{1,0}", "\\p{L}?",   "\\s+$", " ?[a]",   "[a]|[b]", "",
        "\\",         "[\\",         "[a]{1,3}x", "\xFF"}) {
    EXPECT_FALSE(ClassPattern::parse(regex)) << regex;
  }
}

// Characters of old blocks only: table and engine know them alike, whatever their versions.
std::string random_old_text(std::mt19937_64& random) {
  const auto& edges = edge_characters();
  std::string text;
  for (auto count = random() % 24; count > 0; --count) {
    append_utf8(random() % 4 == 0 ? static_cast<char32_t>(random() % 0x250) : edges[random() % edges.size()],
                &text);
  }
  return text;
}

TEST(ClassPattern, SpaceAtLineEndMatchesAsTheRegexEngine) {
  std::mt19937_64 random(31);
  const auto regex = Regex::compile(SpaceAtLineEnd::kRegex);
  size_t found = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    constexpr std::string_view kPieces[] = {" ", "\n", "\r", "\t", "\u3000", "a", "中"};
    for (auto count = random() % 12; count > 0; --count) text += kPieces[random() % std::size(kPieces)];
    const Matches expected = matches_of(*regex, text);
    found += expected.size();
    ASSERT_EQ(matches_of(SpaceAtLineEnd(), text), expected) << ::testing::PrintToString(text);
  }
  EXPECT_GT(found, 10000u);
}

TEST(ClassPattern, MatchesAsTheRegexEngine) {
  std::mt19937_64 random(29);
  for (const char* source :
       {"[\r\n]", "[\\r\\n]", "\\s?[A-Za-zµÀ-ÖØ-öø-ƺͰ-ͳΑ-ω𐐀-𐑏]+", "\\s?[!-/:-~！-／：-～‘-‟　-。]+",
        "[一-龥ࠀ-一가-퟿]+", "\\p{N}{1,3}", "\\s?\\p{L}+", "\\s?\\p{P}+", "\\p{N}", "\\p{M}+", "\\s",
        "\\s?\\s+", "\\s?[\\p{L}\\p{S}\\s]{1,2}", "[\\-\\]\\[\\\\\\^a]+"}) {
    const auto pattern = ClassPattern::parse(source);
    ASSERT_TRUE(pattern) << source;
    const auto regex = Regex::compile(source);
    ASSERT_TRUE(regex.ok()) << source;
    size_t found = 0;
    for (int round = 0; round < 2000; ++round) {
      const std::string text = random_old_text(random);
      const Matches expected = matches_of(*regex, text);
      found += expected.size();
      ASSERT_EQ(matches_of(*pattern, text), expected) << source << " on " << ::testing::PrintToString(text);
    }
    EXPECT_GT(found, 300u) << source;
  }
}

}  // namespace
}  // namespace fathom::text

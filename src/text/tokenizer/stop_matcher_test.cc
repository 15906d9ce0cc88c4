#include "text/tokenizer/stop_matcher.h"

#include <gtest/gtest.h>

#include <malloc.h>

#include <random>

namespace fathom::text {
namespace {

struct Outcome {
  std::string text;
  std::optional<std::string> matched;
  bool operator==(const Outcome&) const = default;
};

std::shared_ptr<const StopStrings> list(std::vector<std::string> stops) {
  return std::make_shared<const StopStrings>(std::move(stops));
}

// Pushes `text` in pieces of random size, or whole when `random` is null.
Outcome run(const std::vector<std::string>& stops, bool keep, std::string_view text,
            std::mt19937_64* random) {
  StopMatcher matcher(list(stops), keep);
  Outcome outcome;
  for (size_t pos = 0; pos < text.size();) {
    const size_t size = random == nullptr ? text.size() : 1 + (*random)() % 4;
    outcome.text += matcher.push(text.substr(pos, size));
    pos += size;
  }
  outcome.text += matcher.finish();
  outcome.matched = matcher.matched();
  return outcome;
}

// By search: the match that ends first, of those the longest.
Outcome by_search(const std::vector<std::string>& stops, bool keep, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    std::optional<std::string> longest;
    for (const auto& stop : stops) {
      if (stop.empty() || !std::string_view(text).substr(0, end).ends_with(stop)) continue;
      if (!longest || stop.size() > longest->size()) longest = stop;
    }
    if (longest) return {text.substr(0, keep ? end : end - longest->size()), longest};
  }
  return {text, std::nullopt};
}

TEST(StopMatcher, HoldsBackOnlyWhatMayStartAStop) {
  StopMatcher matcher(list({"\n\nUser:", "END"}), false);
  EXPECT_EQ(matcher.push("Hello E"), "Hello ");
  EXPECT_EQ(matcher.push("N"), "");
  EXPECT_EQ(matcher.push("ough\n"), "ENough");
  EXPECT_EQ(matcher.push("\n\nUs"), "\n");
  EXPECT_FALSE(matcher.matched());
  EXPECT_EQ(matcher.push("er: hi"), "");
  EXPECT_EQ(matcher.matched(), "\n\nUser:");
  EXPECT_EQ(matcher.push("more"), "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, FinishGivesWhatWasHeldBack) {
  StopMatcher matcher(list({"stop"}), false);
  EXPECT_EQ(matcher.push("st"), "");
  EXPECT_EQ(matcher.finish(), "st");
  EXPECT_EQ(matcher.finish(), "");
  EXPECT_FALSE(matcher.matched());
}

TEST(StopMatcher, KeepsTheStopWhenAsked) {
  EXPECT_EQ(run({"。"}, true, "你好。再见", nullptr), (Outcome{"你好。", "。"}));
  EXPECT_EQ(run({"。"}, false, "你好。再见", nullptr), (Outcome{"你好", "。"}));
}

TEST(StopMatcher, NothingToStopAt) {
  EXPECT_EQ(run({}, false, "text", nullptr), (Outcome{"text", std::nullopt}));
  StopMatcher none(nullptr, false);
  EXPECT_EQ(none.push("text"), "text");
  EXPECT_EQ(run({""}, false, "text", nullptr), (Outcome{"text", std::nullopt}));
}

// 4096 choices with the longest list that may be asked for; each with an automaton of its own took 7 GB.
TEST(StopMatcher, ChoicesShareOneAutomaton) {
  std::mt19937_64 random(9);
  std::vector<std::string> stops(16);
  for (std::string& stop : stops) {
    for (int i = 0; i < 1024; ++i) stop += static_cast<char>(random());
  }
  const auto shared = list(stops);
  EXPECT_LE(shared->bytes(), 16u * 1024 * 20 + 1000);
  const size_t before = mallinfo2().uordblks;
  std::vector<StopMatcher> matchers;
  for (int i = 0; i < 4096; ++i)
    EXPECT_EQ(matchers.emplace_back(shared, false).push(stops[3].substr(0, 9)), "");
  EXPECT_LT(mallinfo2().uordblks - before, size_t{2} << 20);
}

TEST(StopMatcher, EqualsSearchHoweverTheTextIsCut) {
  std::mt19937_64 random(5);
  const auto letters = [&](size_t length) {
    std::string text(length, 'a');
    for (char& c : text) c = static_cast<char>('a' + random() % 2);
    return text;
  };
  int matches = 0;
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops;
    for (auto count = random() % 4; count > 0; --count) stops.push_back(letters(random() % 6));
    const std::string text = letters(random() % 24);
    const bool keep = random() % 2;
    const Outcome expected = by_search(stops, keep, text);
    matches += expected.matched.has_value();
    ASSERT_EQ(run(stops, keep, text, nullptr), expected);
    ASSERT_EQ(run(stops, keep, text, &random), expected);
  }
  EXPECT_GT(matches, 5000);
}

}  // namespace
}  // namespace fathom::text

#include "text/tokenizer/added_tokens.h"

#include <gtest/gtest.h>

namespace fathom::text {
namespace {

AddedToken token(int32_t id, std::string content) {
  AddedToken result;
  result.id = id;
  result.content = std::move(content);
  return result;
}

// The pieces in order: text as it is, a token as its id in angle brackets.
std::vector<std::string> split(const AddedTokenFinder& finder, std::string_view input) {
  std::vector<std::string> pieces;
  finder.split(
      input, [&](std::string_view text) { pieces.emplace_back(text); },
      [&](int32_t id) { pieces.push_back("#" + std::to_string(id)); });
  return pieces;
}

using Pieces = std::vector<std::string>;

TEST(AddedTokens, LongestAtTheLeftmostPlace) {
  const AddedTokenFinder finder({token(1, "<a>"), token(2, "<a><b>"), token(3, "<a"), token(4, "><b")});
  EXPECT_EQ(split(finder, "x<a><b>y"), (Pieces{"x", "#2", "y"}));
  EXPECT_EQ(split(finder, "<a><b"), (Pieces{"#1", "<b"}));
  EXPECT_EQ(split(finder, "<a<a>"), (Pieces{"#3", "#1"}));
  EXPECT_EQ(split(finder, "<<a"), (Pieces{"<", "#3"}));
  EXPECT_EQ(split(finder, "-><b"), (Pieces{"-", "#4"}));
  EXPECT_EQ(split(finder, ""), Pieces{});
  EXPECT_EQ(split(AddedTokenFinder(), "<a>"), (Pieces{"<a>"}));
}

TEST(AddedTokens, StripTakesTheWhiteSpaceAlong) {
  auto left = token(1, "<l>");
  left.lstrip = true;
  auto right = token(2, "<r>");
  right.rstrip = true;
  const AddedTokenFinder finder({left, right});
  EXPECT_EQ(split(finder, "a \u3000\n<l> b"), (Pieces{"a", "#1", " b"}));
  EXPECT_EQ(split(finder, "a <r> \u2003\t<l>"), (Pieces{"a ", "#2", "#1"}));
  EXPECT_EQ(split(finder, " <l>"), (Pieces{"#1"}));
  EXPECT_EQ(split(finder, "<r> "), (Pieces{"#2"}));
}

TEST(AddedTokens, SingleWordStandsAlone) {
  auto word = token(1, "ab");
  word.single_word = true;
  const AddedTokenFinder finder({word});
  EXPECT_EQ(split(finder, "ab"), (Pieces{"#1"}));
  EXPECT_EQ(split(finder, "ab.ab"), (Pieces{"#1", ".", "#1"}));
  EXPECT_EQ(split(finder, "xab ab1 ab_ ab\u0301 éab 中ab"), (Pieces{"xab ab1 ab_ ab\u0301 éab 中ab"}));
  EXPECT_EQ(split(finder, "½ab²"), (Pieces{"½", "#1", "²"}));
}

}  // namespace
}  // namespace fathom::text

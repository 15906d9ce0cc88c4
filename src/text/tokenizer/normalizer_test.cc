#include "text/tokenizer/normalizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace fathom::text {
namespace {

std::string normalized(const nlohmann::json& json, std::string_view text) {
  const auto normalizer = Normalizer::parse(json);
  EXPECT_TRUE(normalizer.ok()) << (normalizer.ok() ? "" : normalizer.error().message);
  return normalizer.ok() ? normalizer->apply(text) : "";
}

TEST(Normalizer, UnicodeForms) {
  const std::string text("\u0041\u030A\u212B\uFB01\u00BD\uAC00\0x", 16);
  EXPECT_EQ(normalized({{"type", "NFC"}}, text), std::string("\u00C5\u00C5\uFB01\u00BD\uAC00\0x", 14));
  EXPECT_EQ(normalized({{"type", "NFKC"}}, text), std::string("\u00C5\u00C5fi1\u20442\uAC00\0x", 16));
  EXPECT_EQ(normalized({{"type", "NFD"}}, "\u00C5"), "\u0041\u030A");
  EXPECT_EQ(normalized({{"type", "NFKD"}}, "\uFB01\u00C5"), "fi\u0041\u030A");
}

TEST(Normalizer, SequenceOfReplaceAndPrepend) {
  const nlohmann::json replace_literal = {
      {"type", "Replace"}, {"pattern", {{"String", "."}}}, {"content", "!"}};
  const nlohmann::json replace_regex = {
      {"type", "Replace"}, {"pattern", {{"Regex", " +"}}}, {"content", " "}};
  const nlohmann::json prepend = {{"type", "Prepend"}, {"prepend", "_"}};
  const nlohmann::json all = {{"type", "Sequence"},
                              {"normalizers", {replace_literal, replace_regex, prepend}}};
  EXPECT_EQ(normalized(all, "a.b   c"), "_a!b c");
  EXPECT_EQ(normalized(all, ""), "");
  EXPECT_TRUE(Normalizer::parse(nullptr)->empty());
  EXPECT_TRUE(Normalizer::parse({{"type", "Sequence"}, {"normalizers", nlohmann::json::array()}})->empty());
}

TEST(Normalizer, RefusesWhatItDoesNotKnowByName) {
  EXPECT_EQ(Normalizer::parse({{"type", "Lowercase"}}).error().message,
            "normalizer 'Lowercase' is not supported");
  EXPECT_FALSE(Normalizer::parse({{"type", "Replace"}, {"content", "x"}}).ok());
  EXPECT_FALSE(Normalizer::parse({{"type", "Sequence"}}).ok());
}

}  // namespace
}  // namespace fathom::text

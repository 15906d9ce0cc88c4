// What structural tags let through, token by token.
#include <gtest/gtest.h>

#include "text/grammar/grammar.h"
#include "text/grammar/testing.h"

namespace fathom::text {
namespace {

using nlohmann::ordered_json;

// Does the grammar let `text` through, and an end after it?
bool reads(const std::shared_ptr<Grammar>& grammar, const std::string& text) {
  const auto mask = GrammarMaskSource(grammar, -1).begin();
  std::vector<int32_t> tokens = demo().encode(text, false);
  tokens.push_back(kEos);
  std::vector<uint64_t> allowed(num_mask_words(demo().vocab_size()));
  for (const int32_t token : tokens) {
    EXPECT_TRUE(mask->fill(allowed).ok());
    const bool allows = (allowed[static_cast<size_t>(token) / 64] >> (token % 64) & 1) != 0;
    EXPECT_EQ(mask->accept(token), allows) << text;
    if (!allows) return false;
  }
  return true;
}

void check(const char* tag, std::initializer_list<const char*> good, std::initializer_list<const char*> bad) {
  Result<Automaton> automaton = structural_tag_grammar(demo(), ordered_json::parse(tag));
  ASSERT_TRUE(automaton.ok()) << automaton.error().message;
  const auto grammar = std::make_shared<Grammar>(demo_tokens(), std::move(*automaton));
  for (const char* text : good) EXPECT_TRUE(reads(grammar, text)) << tag << "\n" << text;
  for (const char* text : bad) EXPECT_FALSE(reads(grammar, text)) << tag << "\n" << text;
}

TEST(StructuralTags, StructuresFollowTheirTriggers) {
  check(R"({"type": "structural_tag", "triggers": ["<fn="], "structures": [
          {"begin": "<fn=add>", "schema": {"type": "object", "properties": {"n": {"type": "integer"}},
           "required": ["n"], "additionalProperties": false}, "end": "</fn>"},
          {"begin": "<fn=now>", "schema": {"type": "null"}, "end": "</fn>"}]})",
        {"", "Hello, été.", R"(So <fn=add>{"n": 3}</fn> and <fn=now>null</fn>.)", "a < b, <fn, <<fn",
         R"(<<fn=add>{"n": 3}</fn>)", R"(<f<fn=now>null</fn>)"},
        {"<fn=", "<fn=sub>", R"(<fn=add>{"n": "3"}</fn>)", R"(<fn=add>{"n": 3})", "<fn=now>null</fn><fn=x"});
}

TEST(StructuralTags, FormatsAreATree) {
  check(R"({"format": {"type": "sequence", "elements": [{"type": "const_string", "value": "It is "},
          {"type": "or", "elements": [{"type": "regex", "pattern": "[0-9]+"}, {"type": "grammar", "grammar":
           "root ::= \"no\" more\nmore ::= \"!\"*"}]}]}})",
        {"It is 12", "It is no!!"}, {"It is ", "It is yes", "It is 1 "});
  check(
      R"({"format": {"type": "tag", "begin": "<a>", "content": {"type": "any_text"}, "end": ["</a>", "<b>"]}})",
      {"<a></a>", "<a>x </b> < </a>", "<a>é<b>"}, {"<a>x", "<a></a>x", "<a><b></a>"});
  check(R"({"format": {"type": "any_text", "excludes": ["abc", "bcd"]}})", {"", "ab", "abd bc abbc"},
        {"abc", "xbcd", "aabc"});
  check(R"x({"format": {"type": "tags_with_separator", "separator": ", ", "at_least_one": true, "tags": [
          {"begin": "(", "content": {"type": "json_schema", "json_schema": {"type": "integer"}}, "end": ")"}]}})x",
        {"(1)", "(1), (22)"}, {"", "(1),", "(1)(2)", "(1), "});
  check(R"({"format": {"type": "tags_with_separator", "separator": "", "stop_after_first": true, "tags": [
          {"begin": "a", "content": {"type": "const_string", "value": ""}, "end": ""}]}})",
        {"", "a"}, {"aa"});
}

TEST(StructuralTags, TriggeredTagsMayBeForcedAndLimited) {
  const std::string tags =
      R"("triggers": ["["], "tags": [{"begin": "[x", "content": {"type": "const_string", "value":
      ":"}, "end": "]"}])";
  check((R"({"format": {"type": "triggered_tags", )" + tags + "}}").c_str(), {"", "a", "a [x:] b [x:]"},
        {"a [y"});
  check((R"({"format": {"type": "triggered_tags", "at_least_one": true, )" + tags + "}}").c_str(),
        {"[x:]", "a [x:] b [x:]"}, {"", "a"});
  check((R"({"format": {"type": "triggered_tags", "stop_after_first": true, )" + tags + "}}").c_str(),
        {"", "a [x:]"}, {"[x:] ", "[x:][x:]"});
}

TEST(StructuralTags, MarkersAreTokens) {
  check(
      R"({"triggers": ["<｜tool▁call▁begin｜>"], "structures": [{"begin": "<｜tool▁call▁begin｜>f<｜tool▁sep｜>",
          "schema": {"type": "integer"}, "end": "<｜tool▁call▁end｜>"}]})",
      {"x<｜tool▁call▁begin｜>f<｜tool▁sep｜>3<｜tool▁call▁end｜>y"},
      {"<｜tool▁call▁begin｜>g<｜tool▁sep｜>3<｜tool▁call▁end｜>", "<｜tool▁sep｜>",
       "<｜tool▁call▁begin｜>f<｜tool▁sep｜>3"});
}

TEST(StructuralTags, WhatCannotBeIsRefusedByPath) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({})", "/structures"},
      {R"({"format": {"type": "xml"}})", "/format/type"},
      {R"({"format": {"type": "regex", "pattern": "("}})", "regular expression"},
      {R"({"format": {"type": "sequence", "elements": []}})", "/format/elements"},
      {R"({"format": {"type": "tag", "begin": "a", "content": {"type": "any_text", "x": 1}, "end": ""}})",
       "content/x"},
      {R"({"triggers": ["<a"], "structures": [{"begin": "b", "schema": {}, "end": "c"}]})",
       "none of the triggers"},
      {R"({"triggers": [], "structures": [{"begin": "b", "schema": {}, "end": "c"}]})", "triggers"},
      {R"({"triggers": ["b"], "structures": [{"begin": "b", "schema": {"not": {}}, "end": "c"}]})", "/not"}};
  for (const auto& [tag, message] : cases) {
    const auto refused = structural_tag_grammar(demo(), ordered_json::parse(tag));
    ASSERT_FALSE(refused.ok()) << tag;
    EXPECT_NE(refused.error().message.find(message), std::string::npos) << refused.error().message;
  }
  ordered_json deep = {{"type", "const_string"}, {"value", "x"}};
  for (int i = 0; i < 60; ++i) deep = {{"type", "sequence"}, {"elements", ordered_json::array({deep})}};
  EXPECT_FALSE(structural_tag_grammar(demo(), {{"format", deep}}).ok());
  ordered_json many = {{"triggers", {std::string(600, 'a')}},
                       {"structures", {{{"begin", std::string(600, 'a')}, {"schema", true}, {"end", ""}}}}};
  EXPECT_FALSE(structural_tag_grammar(demo(), many).ok());
}

}  // namespace
}  // namespace fathom::text
